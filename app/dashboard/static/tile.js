// One number of a page with its name. It stands out while it is not zero.

import { h, setText } from "./dom.js";
import { number } from "./format.js";

export function tile(label, tone, ...more) {
  const figure = h("dd", { class: "figure" }, "–");
  const element = h("div", { class: tone ? `tile marked ${tone}` : "tile" }, h("dt", {}, label), figure, ...more);
  const show = (value) => {
    setText(figure, number(value));
    element.classList.toggle("some", value > 0);
  };
  return { element, show };
}
