// A state as a word with a shape and a colour, of which the shape and the word are enough.

import { h, svg } from "./dom.js";

const SHAPES = {
  disc: () => svg("circle", { cx: 5, cy: 5, r: 4 }),
  ring: () => svg("circle", { cx: 5, cy: 5, r: 3.2, class: "line" }),
  half: () => svg("path", { d: "M5 1a4 4 0 0 1 0 8z M5 1a4 4 0 1 0 0 8a4 4 0 1 0 0-8z", class: "half" }),
  triangle: () => svg("path", { d: "M5 0.8 9.6 9.2H0.4z" }),
  square: () => svg("rect", { x: 1, y: 1, width: 8, height: 8, rx: 1 }),
  dash: () => svg("rect", { x: 1, y: 4, width: 8, height: 2.4, rx: 1 }),
};

export function badge(states, state) {
  const { label, shape, tone } = states[state] ?? { label: state, shape: "dash", tone: "quiet" };
  const mark = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true", class: "mark" }, SHAPES[shape]());
  return h("span", { class: `badge ${tone}` }, mark, label);
}
