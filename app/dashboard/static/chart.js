// Numbers over the last hour as steps, one above the other: SVG, so that a theme is CSS and nothing needs a canvas.

import { h, setText, svg } from "./dom.js";
import { clock, number } from "./format.js";

export const SPAN = 3600;
const HEIGHT = 190;
const PAD = { top: 10, right: 8, bottom: 24, left: 40 };
const TICK = 600; // s between two times on the axis
const TABLE_STEP = 300; // s between two lines of the table

export class Chart {
  // series: {key, label, tone}, the lowest first.
  constructor({ title, series }) {
    Object.assign(this, { title, series });
    this.history = { at: [], ...Object.fromEntries(series.map(({ key }) => [key, []])) };
    this.now = 0;
    this.plot = svg("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": `${title}: nothing is known yet` });
    this.values = new Map(series.map(({ key }) => [key, h("b", { class: "figure" })]));
    this.when = h("span", { class: "when" });
    const legend = series.map(({ key, label, tone }) => h("li", { class: tone }, h("i"), label, " ", this.values.get(key)));
    const lines = h("tbody");
    const heads = ["Time", ...series.map(({ label }) => label)].map((label) => h("th", { scope: "col" }, label));
    const numbers = h("table", {}, h("caption", { class: "unseen" }, `${title}, every 5 minutes`), h("thead", {}, h("tr", {}, heads)), lines);
    this.lines = lines;
    this.details = h("details", { class: "numbers", ontoggle: () => this.#list() }, h("summary", {}, "Show as a table"), numbers);
    const head = h("div", { class: "chart-head" }, h("h3", {}, title), this.when, h("ul", { class: "legend" }, legend));
    this.element = h("figure", { class: "chart" }, head, this.plot, this.details);
    this.plot.addEventListener("pointermove", (event) => this.#point(event));
    this.plot.addEventListener("pointerleave", () => this.#unpoint());
    this.sized = new ResizeObserver(() => this.draw());
    this.sized.observe(this.plot);
  }

  set(history) {
    this.history = { at: [...history.at], ...Object.fromEntries(this.series.map(({ key }) => [key, [...history[key]]])) };
  }

  push(at, row) {
    const { history } = this;
    history.at.push(at);
    this.series.forEach(({ key }) => history[key].push(row[key]));
    const old = history.at.findLastIndex((time) => time <= at - SPAN);
    if (old > 0) Object.values(history).forEach((column) => column.splice(0, old));
  }

  // now: by the server's clock.
  draw(now = this.now) {
    this.now = now;
    const width = this.plot.clientWidth;
    if (!width || !now) return;
    const most = scale(Math.max(1, ...this.history.at.map((_, index) => this.#sum(index, this.series.length))));
    this.x = (at) => PAD.left + ((at - now + SPAN) / SPAN) * (width - PAD.left - PAD.right);
    this.y = (value) => HEIGHT - PAD.bottom - (value / most.top) * (HEIGHT - PAD.top - PAD.bottom);
    this.cursor = svg("line", { class: "cursor", y1: PAD.top, y2: HEIGHT - PAD.bottom, visibility: "hidden" });
    this.plot.replaceChildren(...this.#grid(most, width), ...this.#areas(), this.cursor);
    this.plot.setAttribute("aria-label", this.#summary());
    this.#legend(this.history.at.length - 1);
    if (this.details.open) this.#list();
  }

  stop() {
    this.sized.disconnect();
  }

  #sum(index, count) {
    return this.series.slice(0, count).reduce((sum, { key }) => sum + this.history[key][index], 0);
  }

  #grid({ top, step }, width) {
    const drawn = [];
    for (let value = 0; value <= top; value += step) {
      const y = this.y(value);
      drawn.push(svg("line", { class: value ? "grid" : "base", x1: PAD.left, x2: width - PAD.right, y1: y, y2: y }));
      drawn.push(svg("text", { x: PAD.left - 8, y: y + 4, "text-anchor": "end" }, number(value)));
    }
    const every = width < 480 ? 2 * TICK : TICK;
    for (let at = Math.ceil((this.now - SPAN) / every) * every; at <= this.now; at += every) {
      const x = this.x(at);
      if (x > PAD.left + 12 && x < width - 20)
        drawn.push(svg("text", { x, y: HEIGHT - 6, "text-anchor": "middle" }, clock(at)));
    }
    return drawn;
  }

  #areas() {
    return this.series.map(({ key, tone }, order) => {
      const upper = this.#steps(order + 1);
      const area = path([...upper, ...this.#steps(order).reverse()]);
      // A series without agents has no edge: it would hide the one below it.
      const edges = upper.filter((_, corner) => this.history[key][corner >> 1] > 0);
      const lines = edges.map(([x, y], index) => {
        const joined = index > 0 && edges[index - 1][0] === x;
        return `${index % 2 === 0 && !joined ? "M" : "L"}${point([x, y])}`;
      });
      return svg("g", { class: tone }, svg("path", { class: "area", d: area }), svg("path", { class: "edge", d: lines.join("") }));
    });
  }

  // The corners of the sum of the first series, from the left edge to now.
  #steps(count) {
    const { at } = this.history;
    const corners = [];
    at.forEach((time, index) => {
      const y = this.y(this.#sum(index, count));
      corners.push([this.x(Math.max(time, this.now - SPAN)), y]);
      corners.push([this.x(Math.max(at[index + 1] ?? this.now, this.now - SPAN)), y]);
    });
    return corners;
  }

  #summary() {
    const last = this.history.at.length - 1;
    if (last < 0) return this.plot.getAttribute("aria-label");
    const words = this.series.map(({ key, label }) => {
      return `${label} ${number(this.history[key][last])}, at most ${number(Math.max(...this.history[key]))}`;
    });
    return `${this.title} in the last hour, now and at most: ${words.join("; ")}`;
  }

  #legend(index, at = null) {
    setText(this.when, at === null ? "now" : clock(at));
    this.series.forEach(({ key }) => setText(this.values.get(key), index < 0 ? "–" : number(this.history[key][index])));
  }

  #index(at) {
    return this.history.at.findLastIndex((time) => time <= at);
  }

  #point(event) {
    if (!this.x) return;
    const box = this.plot.getBoundingClientRect();
    const part = (event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right);
    const at = this.now - SPAN + Math.max(0, Math.min(1, part)) * SPAN;
    this.cursor.setAttribute("x1", this.x(at));
    this.cursor.setAttribute("x2", this.x(at));
    this.cursor.setAttribute("visibility", "visible");
    this.#legend(this.#index(at), at);
  }

  #unpoint() {
    this.cursor?.setAttribute("visibility", "hidden");
    this.#legend(this.history.at.length - 1);
  }

  #list() {
    const lines = [];
    for (let at = Math.floor(this.now / TABLE_STEP) * TABLE_STEP; at > this.now - SPAN; at -= TABLE_STEP) {
      const index = this.#index(at);
      const cells = this.series.map(({ key }) => h("td", { class: "numeric" }, index < 0 ? "–" : number(this.history[key][index])));
      lines.push(h("tr", {}, h("th", { scope: "row" }, clock(at)), cells));
    }
    this.lines.replaceChildren(...lines);
  }
}

const point = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;
const path = (corners) => (corners.length ? `M${corners.map(point).join("L")}Z` : "");

// A round top and the step between the lines below it: whole numbers, at most five of them.
function scale(most) {
  const steps = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1e3, 1e4, 1e5, 1e6].map((power) => digit * power)).sort((a, b) => a - b);
  const step = steps.find((candidate) => most / candidate <= 4) ?? most;
  return { top: Math.ceil(most / step) * step, step };
}
