// A table of any size: sorted by its headings' buttons, filtered, and one page of it in the document.

import { h, setText } from "./dom.js";
import { number } from "./format.js";

const REDRAW = 200; // ms between two drawings, however many events come

export class Table {
  // columns: {label, numeric, hint, value(row) to sort by, fixed(row) made once for a row, cell(row) made when it changes}.
  // The first is the row's heading. sort is [column, 1 or -1]; ties are in the order of keys. empty() says why there is
  // nothing.
  constructor({ caption, columns, sort, size, empty }) {
    Object.assign(this, { columns, sort, size, empty });
    this.rows = new Map();
    this.lines = new Map();
    this.page = 0;
    this.keep = () => true;
    this.total = null;
    this.buttons = columns.map((column, index) => this.#button(column, index));
    this.heads = columns.map((column, index) =>
      h("th", { scope: "col", class: column.numeric ? "numeric" : "" }, this.buttons[index]),
    );
    this.body = h("tbody");
    const table = h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, this.heads)), this.body);
    this.note = h("p", { class: "empty", hidden: true });
    this.range = h("p", { class: "range" });
    this.back = h("button", { type: "button", class: "plain", onclick: () => this.#turn(-1) }, "Previous");
    this.next = h("button", { type: "button", class: "plain", onclick: () => this.#turn(1) }, "Next");
    this.pager = h("nav", { class: "pager", "aria-label": `Pages of ${caption}` }, this.range, this.back, this.next);
    const frame = h("div", { class: "frame", tabindex: "0", role: "region", "aria-label": caption }, table);
    this.element = h("div", { class: "table" }, frame, this.note, this.pager);
  }

  // rows: those that are new or changed; gone: keys; whole: forget all others. total: how many there really are.
  change({ rows, gone = [], whole = false, total = null }) {
    if (whole) this.rows.clear();
    gone.forEach((key) => this.rows.delete(key));
    rows.forEach((row) => this.rows.set(row.key, row));
    this.total = total;
    this.#later();
  }

  filter(keep) {
    this.keep = keep;
    this.page = 0;
    this.draw();
  }

  // Times grow old by themselves.
  refresh() {
    this.lines.forEach((line) => (line.row = null));
    this.draw();
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const found = this.#ordered();
    this.page = Math.max(0, Math.min(this.page, Math.ceil(found.length / this.size) - 1));
    const first = this.page * this.size;
    this.#place(found.slice(first, first + this.size));
    this.#tell(found.length, first);
    this.heads.forEach((head, index) => {
      const sorted = index === this.sort[0];
      head.ariaSort = sorted ? (this.sort[1] > 0 ? "ascending" : "descending") : "none";
    });
    this.found = found.length;
    this.onDrawn?.();
  }

  #later() {
    this.timer ??= setTimeout(() => this.draw(), REDRAW);
  }

  #button(column, index) {
    const sort = () => {
      const first = column.numeric ? -1 : 1;
      this.sort = [index, this.sort[0] === index ? -this.sort[1] : first];
      this.page = 0;
      this.draw();
    };
    return h("button", { type: "button", class: "sort", title: column.hint, onclick: sort }, column.label);
  }

  #turn(by) {
    this.page += by;
    this.draw();
  }

  #ordered() {
    const [index, direction] = this.sort;
    const { value } = this.columns[index];
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return [...this.rows.values()]
      .filter((row) => this.keep(row))
      .sort((a, b) => direction * compare(value(a), value(b)) || compare(a.key, b.key));
  }

  // The lines that stay are left where they are, with the focus that one of them may have.
  #place(rows) {
    const shown = new Set(rows.map((row) => row.key));
    this.lines.forEach((line, key) => {
      if (!shown.has(key)) {
        line.element.remove();
        this.lines.delete(key);
      }
    });
    let before = this.body.firstChild;
    for (const row of rows) {
      const line = this.lines.get(row.key) ?? this.#line(row);
      if (line.row !== row) this.#write(line, row);
      if (line.element === before) before = before.nextSibling;
      else this.#move(line.element, before);
    }
  }

  #move(element, before) {
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    this.body.insertBefore(element, before);
    focused?.focus({ preventScroll: true });
  }

  #line(row) {
    const cells = this.columns.map((column, index) => {
      const cell = index ? h("td") : h("th", { scope: "row" });
      cell.className = column.numeric ? "numeric" : "";
      if (column.fixed) cell.append(column.fixed(row));
      return cell;
    });
    const line = { row: null, cells, element: h("tr", {}, cells) };
    this.lines.set(row.key, line);
    return line;
  }

  #write(line, row) {
    line.row = row;
    this.columns.forEach((column, index) => {
      if (!column.cell) return;
      const content = column.cell(row);
      if (content instanceof Node) line.cells[index].replaceChildren(content);
      else setText(line.cells[index], content);
    });
  }

  #tell(count, first) {
    const last = Math.min(first + this.size, count);
    const more = this.total !== null && this.total > this.rows.size ? `; ${number(this.total)} in all` : "";
    setText(this.range, count ? `${number(first + 1)}–${number(last)} of ${number(count)}${more}` : "");
    this.back.disabled = first === 0;
    this.next.disabled = last >= count;
    this.pager.hidden = count === 0;
    this.back.hidden = this.next.hidden = count <= this.size;
    this.note.hidden = count > 0;
    this.element.classList.toggle("bare", count === 0);
    if (count === 0) setText(this.note, this.empty());
  }
}

