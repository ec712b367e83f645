// All pools that the reader may list.

import { badge } from "./badge.js";
import { h, setText, svg } from "./dom.js";
import { POOL_STATES, counted, number, rank } from "./format.js";
import { Table } from "./table.js";
import { tile } from "./tile.js";

export const poolLink = ({ namespace, name }) => `#/pools/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

const TROUBLE = new Set(["stalled", "failing"]);
const wanting = (row) => TROUBLE.has(row.state) || row.error !== "";
const CHOICES = {
  "": ["All states", () => true],
  trouble: ["Need attention", wanting],
  queue: ["With a queue", (row) => row.queue > 0],
  ...Object.fromEntries(Object.entries(POOL_STATES).map(([key, { label }]) => [key, [label, (row) => row.state === key]])),
};

const COLUMNS = [
  {
    label: "Pool",
    value: (row) => row.name,
    fixed: (row) => h("a", { href: poolLink(row), class: "name" }, h("span", { class: "space" }, `${row.namespace}/`), row.name),
  },
  { label: "State", value: (row) => rank(POOL_STATES, row.state), cell: (row) => badge(POOL_STATES, row.state) },
  {
    label: "Agents",
    hint: "Agents that exist or were asked for, of maxReplicas",
    numeric: true,
    value: (row) => row.size,
    cell: (row) => h("span", { class: "size" }, bar(row), h("span", {}, number(row.size), h("small", {}, ` / ${number(row.maxReplicas)}`))),
  },
  { label: "Running", hint: "Agents that run sessions", numeric: true, value: (row) => row.running, cell: (row) => figure(row.running) },
  { label: "Idle", hint: "Agents that have joined and run no session", numeric: true, value: (row) => row.idle, cell: (row) => figure(row.idle) },
  { label: "Pending", hint: "Agents that have not joined yet", numeric: true, value: (row) => row.pending, cell: (row) => figure(row.pending) },
  { label: "Queue", hint: "Sessions that wait for a slot", numeric: true, value: (row) => row.queue, cell: (row) => figure(row.queue, "queue-number") },
  {
    label: "What is wrong",
    value: (row) => (wanting(row) ? row.error || row.message : "\uffff"),
    cell: (row) => {
      const said = wanting(row) ? row.error || row.message : "";
      return h("span", { class: "said", title: said }, said);
    },
  },
];

function figure(value, tone = "") {
  return h("span", { class: value ? tone : "zero" }, number(value));
}

// How full the pool is; the numbers beside it say the same.
function bar(row) {
  const most = Math.max(row.maxReplicas, row.size, 1);
  let x = 0;
  const parts = ["running", "idle", "pending", "unknown"].map((key) => {
    const width = (row[key] / most) * 100;
    const part = svg("rect", { x, y: 0, width, height: 8, class: key });
    x += width;
    return part;
  });
  const drawn = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true", class: "gauge" });
  drawn.append(svg("rect", { x: 0, y: 0, width: 100, height: 8, class: "room" }), ...parts);
  return drawn;
}

export class Overview {
  title = "Pools";

  constructor({ follow, parameters, keep }) {
    this.keepParameters = keep;
    this.shown = false;
    this.table = new Table({ caption: "Pools", columns: COLUMNS, sort: [1, 1], size: 50, empty: () => this.#nothing() });
    this.table.onDrawn = () => this.#count();
    this.heading = h("h1", { tabindex: "-1" }, "Pools");
    this.sub = h("p", { class: "sub" });
    this.tiles = new Map();
    const tiles = [
      ["agents", "Agents", ""],
      ["running", "Running", "running"],
      ["idle", "Idle", "idle"],
      ["pending", "Pending", "pending"],
      ["queue", "Sessions queued", "queue"],
      ["trouble", "Need attention", "trouble"],
    ].map(([key, label, tone]) => {
      const made = tile(label, tone);
      this.tiles.set(key, made);
      return made.element;
    });
    this.search = h("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false", placeholder: "Name or namespace" });
    this.search.value = parameters.get("q") ?? "";
    const options = Object.entries(CHOICES).map(([value, [label]]) => h("option", { value }, label));
    this.choice = h("select", { id: "state" }, options);
    this.choice.value = parameters.get("state") in CHOICES ? parameters.get("state") : "";
    this.matches = h("p", { class: "matches", role: "status" });
    this.search.addEventListener("input", () => this.#filter());
    this.choice.addEventListener("change", () => this.#filter());
    const tools = h(
      "form",
      { class: "tools", role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", { for: "filter" }, "Filter", this.search),
      h("label", { for: "state" }, "State", this.choice),
      this.matches,
    );
    this.element = h(
      "div",
      {},
      h("div", { class: "title" }, this.heading, this.sub),
      h("dl", { class: "tiles" }, tiles),
      h("section", { class: "card" }, tools, this.table.element),
    );
    this.#filter();
    this.stop = follow("pools", { pools: (data) => this.table.change(data) });
  }

  #filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [, fits] = CHOICES[this.choice.value];
    this.table.filter((row) => fits(row) && words.every((word) => row.key.includes(word)));
    this.keepParameters({ q: this.search.value, state: this.choice.value });
  }

  #count() {
    if (!this.shown) return;
    const rows = [...this.table.rows.values()];
    const sum = (key) => rows.reduce((total, row) => total + row[key], 0);
    const totals = {
      agents: sum("size"),
      running: sum("running"),
      idle: sum("idle"),
      pending: sum("pending"),
      queue: sum("queue"),
      trouble: rows.filter(wanting).length,
    };
    Object.entries(totals).forEach(([key, value]) => this.tiles.get(key).show(value));
    const spaces = new Set(rows.map((row) => row.namespace)).size;
    setText(this.sub, `${counted(rows.length, "pool", "pools")} in ${counted(spaces, "namespace", "namespaces")}`);
    const filtered = this.search.value || this.choice.value;
    setText(this.matches, filtered ? `${counted(this.table.found, "pool matches", "pools match")}` : "");
  }

  #nothing() {
    if (!this.shown) return "Loading…";
    if (this.table.rows.size) return "No pool matches the filter.";
    return "There are no pools yet. Make one with kubectl apply, and it is shown here.";
  }
}
