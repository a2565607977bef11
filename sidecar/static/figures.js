import { h, setAttribute, setStyle, setText } from "./dom.js";
import { clock, count } from "./format.js";
import { SEGMENTS, STATES } from "./states.js";

/** One bar, 6 px high, a segment a state. */
export class SegmentBar {
  #segments;

  constructor() {
    this.#segments = Object.fromEntries(SEGMENTS.map((name) => [name, h("span", { class: "segment", "data-status": name })]));
    this.element = h("div", { class: "segments", role: "img" }, ...Object.values(this.#segments));
  }

  /** `share` is how much of the bar's length all of it takes. */
  set(counts, share = 1) {
    const known = SEGMENTS.filter((name) => counts[name] > 0);
    const total = known.reduce((sum, name) => sum + counts[name], 0);
    for (const name of SEGMENTS) {
      setAttribute(this.#segments[name], "hidden", !counts[name]);
      if (counts[name]) setStyle(this.#segments[name], "flex-grow", String(counts[name] / total));
    }
    setStyle(this.element, "--share", total ? String(Math.max(share, 0.02)) : "0");
    setAttribute(this.element, "aria-label", known.map((name) => `${counts[name]} ${STATES[name].word.toLowerCase()}`).join(", ") || "nothing waits or runs");
  }
}

const CELLS = [
  ["total", "Total"],
  ["active", "Active"],
  ["pending", "Pending"],
  ["workers", "Workers"],
  ["failed", "Failed, last hour"],
  ["oldest", "Oldest waiting"],
];

/** The strip of figures at the top. */
export class Figures {
  #values = {};
  #bar = new SegmentBar();
  #asOf = h("span", { class: "as-of" });

  constructor() {
    const cells = CELLS.map(([name, label]) => this.#cell(name, label));
    cells[0].append(h("dd", { class: "all" }, this.#bar.element));
    this.element = h("dl", { class: "figures" }, ...cells);
  }

  #cell(name, label) {
    this.#values[name] = h("dd", { class: "value" });
    return h("div", { class: "figure", "data-figure": name }, h("dt", { text: label }), this.#values[name]);
  }

  render(status) {
    const figures = {
      total: count(status?.total_tasks),
      active: count(status?.active_tasks),
      pending: count(status?.pending_tasks),
      workers: count(status?.workers_online),
      failed: count(status?.failed_last_hour),
    };
    for (const [name, text] of Object.entries(figures)) {
      setText(this.#values[name], text);
      setAttribute(this.#values[name], "title", text === "–" ? "not known" : null);
    }
    setAttribute(this.#values.failed, "data-some", status?.failed_last_hour > 0);
    setAttribute(this.#bar.element.parentElement, "hidden", !Number.isFinite(status?.total_tasks));
    this.#bar.set({
      active: status?.active_tasks,
      reserved: status?.reserved_tasks,
      scheduled: status?.scheduled_tasks,
      pending: status?.pending_tasks,
    });
  }

  /** How long the next task has waited at least: it is not known when it was sent. */
  tick(status, now) {
    const known = Number.isFinite(status?.oldest_waiting_s);
    const late = known ? status.oldest_waiting_s + Math.max(0, now - status.server_time) : null;
    setText(this.#values.oldest, known ? `≥ ${clock(late)}` : "–");
    setAttribute(this.#values.oldest, "title", known ? "at least; a message has no time of sending" : "nothing waits, or not known");
  }
}
