// One pool: its last hour, why it has the size that it has, its agents and its sessions.

import { badge } from "./badge.js";
import { Chart } from "./chart.js";
import { h, setText } from "./dom.js";
import { AGENT_STATES, POOL_STATES, SESSION_STATES, age, moment, number, rank } from "./format.js";
import { Table } from "./table.js";
import { tile } from "./tile.js";

const since = (epoch) => (epoch === null ? "" : h("time", { datetime: new Date(epoch * 1000).toISOString(), title: moment(epoch) }, age(epoch)));

const AGENTS = [
  { label: "Agent", value: (row) => row.key, fixed: (row) => h("span", { class: "code" }, row.key) },
  { label: "State", value: (row) => rank(AGENT_STATES, row.state), cell: (row) => badge(AGENT_STATES, row.state) },
  {
    label: "Sessions",
    hint: "Sessions that it has, of its slots",
    value: (row) => row.sessions,
    cell: (row) => (row.slots === null ? "–" : `${number(row.sessions)} / ${number(row.slots)}`),
  },
  { label: "For", hint: "How long it has been so", value: (row) => row.since ?? 0, cell: (row) => since(row.since) },
  { label: "Node", value: (row) => row.node, cell: (row) => h("span", { class: "code" }, row.node) },
  { label: "What is wrong", value: (row) => row.problem || "\uffff", cell: (row) => h("span", { class: "said", title: row.problem }, row.problem) },
];

const SESSIONS = [
  { label: "Session", value: (row) => row.id, fixed: (row) => h("span", { class: "code" }, row.id) },
  { label: "State", value: (row) => rank(SESSION_STATES, row.state), cell: (row) => badge(SESSION_STATES, row.state) },
  { label: "Age", hint: "How long ago it was requested", value: (row) => row.requested, cell: (row) => since(row.requested) },
  { label: "User", value: (row) => row.user, cell: (row) => row.user },
  { label: "Service", value: (row) => row.service, cell: (row) => row.service },
  { label: "Instance", value: (row) => Number(row.instance), cell: (row) => row.instance },
  { label: "Agent", value: (row) => row.agent, cell: (row) => h("span", { class: "code" }, row.agent) },
];

const CONDITIONS = ["Ready", "CapacityReady", "Reconciling", "Stalled"];

export class PoolPage {
  constructor({ follow, namespace, name }) {
    this.title = `${namespace}/${name}`;
    this.heading = h("h1", { tabindex: "-1" }, h("span", { class: "space" }, `${namespace}/`), name);
    this.state = h("span", { class: "state" });
    this.message = h("p", { class: "sub" });
    this.problem = h("p", { class: "notice bad", hidden: true });
    this.tiles = new Map();
    this.charts = [
      new Chart({
        title: "Agents",
        series: [
          { key: "running", label: "Running", tone: "running" },
          { key: "idle", label: "Idle", tone: "idle" },
          { key: "pending", label: "Pending", tone: "pending" },
          { key: "unknown", label: "Unknown", tone: "unknown" },
        ],
      }),
      new Chart({ title: "Sessions that wait", series: [{ key: "queue", label: "Queue", tone: "queue" }] }),
    ];
    this.agents = new Table({ caption: "Agents", columns: AGENTS, sort: [1, 1], size: 25, empty: () => this.#none("agents") });
    this.sessions = new Table({ caption: "Sessions", columns: SESSIONS, sort: [1, 1], size: 25, empty: () => this.#none("sessions") });
    this.decision = h("p", { class: "decision" }, "–");
    this.decided = h("p", { class: "muted" });
    this.conditions = h("tbody");
    this.loaded = new Set();
    this.agents.draw();
    this.sessions.draw();
    this.element = h("div", {}, this.#head(), this.problem, this.#figures(), this.#rest());
    this.ahead = 0;
    const path = `pools/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
    const ending = follow(path, {
      pool: (data) => this.#show(data),
      agents: (data) => this.#list("agents", data),
      sessions: (data) => this.#list("sessions", data),
    });
    const beat = setInterval(() => this.#beat(), 5000);
    this.stop = () => {
      ending();
      clearInterval(beat);
      this.charts.forEach((chart) => chart.stop());
    };
  }

  #head() {
    const path = h("nav", { class: "path", "aria-label": "Breadcrumb" }, h("a", { href: "#/" }, "Pools"), h("span", { "aria-hidden": "true" }, "›"));
    return h("div", { class: "title" }, path, h("div", { class: "name-line" }, this.heading, this.state), this.message);
  }

  #figures() {
    const tiles = [
      ["size", "Agents", ""],
      ["running", "Running", "running"],
      ["idle", "Idle", "idle"],
      ["pending", "Pending", "pending"],
      ["unknown", "Unknown", "unknown"],
      ["queue", "Sessions queued", "queue"],
    ].map(([key, label, tone]) => {
      const more = h("dd", { class: "more" });
      const made = tile(label, tone, more);
      this.tiles.set(key, { ...made, more });
      return made.element;
    });
    return h("dl", { class: "tiles" }, tiles);
  }

  #rest() {
    const heads = ["Condition", "Status", "Reason", "Message"].map((label) => h("th", { scope: "col" }, label));
    const conditions = h("table", {}, h("caption", { class: "unseen" }, "Conditions"), h("thead", {}, h("tr", {}, heads)), this.conditions);
    const section = (label, ...content) => h("section", { class: "card" }, h("h2", {}, label), ...content);
    return [
      section("Last hour", h("div", { class: "charts" }, this.charts.map((chart) => chart.element))),
      section("Why it has this size", this.decision, this.decided, h("div", { class: "frame", tabindex: "0", role: "region", "aria-label": "Conditions" }, conditions)),
      section("Agents", this.agents.element),
      section("Sessions", this.sessions.element),
    ];
  }

  #show({ at, pool, history }) {
    this.ahead = at - Date.now() / 1000;
    this.state.replaceChildren(badge(POOL_STATES, pool.state));
    setText(this.message, pool.message);
    const wrong = pool.error && pool.error !== pool.message ? pool.error : "";
    setText(this.problem, wrong);
    this.problem.hidden = !wrong;
    this.#tile("size", pool.size, `${number(pool.minReplicas)} to ${number(pool.maxReplicas)} allowed`);
    this.#tile("running", pool.running, `${number(pool.slots)} slots in all`);
    this.#tile("idle", pool.idle, `${number(pool.idleSlots)} idle slots; ${number(pool.minIdle)} to ${number(pool.maxIdle)} wanted`);
    this.#tile("pending", pool.pending, pool.outdated ? `${number(pool.outdated)} of an older template` : "");
    this.#tile("unknown", pool.unknown, "without a connection");
    this.#tile("queue", pool.queue, "");
    for (const chart of this.charts) {
      if (history) chart.set(history);
      else chart.push(at, pool);
      chart.draw(at);
    }
    this.#explain(pool);
  }

  #tile(key, value, more) {
    const tile = this.tiles.get(key);
    tile.show(value);
    setText(tile.more, more);
  }

  #explain({ decision, conditions, template }) {
    setText(this.decision, decision.reason || "Nothing has been decided yet.");
    const when = decision.time ? `Decided ${moment(Date.parse(decision.time) / 1000)} by the rule ${decision.rule}.` : "";
    setText(this.decided, [when, template ? `Template ${template}.` : ""].join(" ").trim());
    const order = ({ type }) => (CONDITIONS.includes(type) ? CONDITIONS.indexOf(type) : CONDITIONS.length);
    const lines = [...conditions].sort((a, b) => order(a) - order(b)).map(({ type, status, reason, message, lastTransitionTime }) => {
      const title = lastTransitionTime ? `since ${moment(Date.parse(lastTransitionTime) / 1000)}` : undefined;
      return h("tr", { title }, h("th", { scope: "row" }, type), h("td", {}, status), h("td", {}, reason), h("td", { class: "long" }, message));
    });
    this.conditions.replaceChildren(...lines);
  }

  #list(which, data) {
    this.loaded.add(which);
    this.denied = which === "sessions" ? data.hidden : this.denied;
    this[which].change(data);
  }

  #none(which) {
    if (!this.loaded.has(which)) return "Loading…";
    if (which === "agents") return "It has no agents now.";
    return this.denied ? "You may not list the sessions of this namespace (list agentpools)." : "It has no sessions now.";
  }

  #beat() {
    this.charts.forEach((chart) => chart.draw(Date.now() / 1000 + this.ahead));
    this.agents.refresh();
    this.sessions.refresh();
  }
}
