import { h, setAttribute, setStyle, setText } from "./dom.js";
import { SegmentBar } from "./figures.js";
import { count, plural, roughly } from "./format.js";
import { Sparks } from "./sparks.js";

// Ten times a second would only flicker.
const PAUSE_MS = 250;
const SLOTS_DRAWN = 16;

/** Sparks, queues and workers. */
export class Side {
  #sparks = new Sparks();
  #queues = new KeyedRows(h("ul", { class: "queues", role: "list" }), QueueRow);
  #workers = new KeyedRows(h("ul", { class: "workers", role: "list" }), WorkerRow);
  #renderedAt = 0;

  constructor() {
    this.element = h(
      "aside",
      { class: "side", "aria-label": "Queues and workers" },
      this.#sparks.element,
      h("section", {}, h("h3", { text: "Queues" }), this.#queues.list),
      h("section", {}, h("h3", { text: "Workers" }), this.#workers.list),
    );
  }

  /** Draw it unless that was done just now; tells whether it was. */
  render(queue, { force = false } = {}) {
    if (!force && performance.now() - this.#renderedAt < PAUSE_MS) return false;
    this.#renderedAt = performance.now();
    setAttribute(this.element, "data-unknown", queue.status?.workers_online === null);
    const { byQueue, byWorker } = tally(queue.tasks);
    const queues = (queue.status?.queues ?? []).map((each) => ({ ...byQueue.get(each.name), ...each }));
    const longest = Math.max(1, ...queues.map(lengthOf));
    this.#queues.render(queues, (each) => each.name, { longest });
    const workers = [...queue.workers].map(([id, worker]) => ({ ...worker, id, active: byWorker.get(worker.worker) ?? 0 }));
    workers.sort((one, other) => Number(one.status === "offline") - Number(other.status === "offline") || (one.worker < other.worker ? -1 : 1));
    this.#workers.render(workers, (each) => each.id, { now: queue.now() });
    this.#sparks.render(queue.rates, queue.now());
    return true;
  }
}

function tally(tasks) {
  const byQueue = new Map();
  const byWorker = new Map();
  for (const { queue, worker, status } of tasks.values()) {
    const counts = byQueue.get(queue) ?? {};
    counts[status] = (counts[status] ?? 0) + 1;
    byQueue.set(queue, counts);
    if (status === "active") byWorker.set(worker, (byWorker.get(worker) ?? 0) + 1);
  }
  return { byQueue, byWorker };
}

const lengthOf = ({ pending, active = 0, reserved = 0, scheduled = 0 }) => (pending ?? 0) + active + reserved + scheduled;

/** Rows that are made once and then changed. */
class KeyedRows {
  #rows = new Map();
  #Row;

  constructor(list, Row) {
    this.list = list;
    this.#Row = Row;
  }

  render(items, keyOf, context) {
    const keys = new Set(items.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    let next = this.list.firstChild;
    for (const item of items) {
      const row = this.#rows.get(keyOf(item)) ?? new this.#Row();
      this.#rows.set(keyOf(item), row);
      if (row.element === next) next = next.nextSibling;
      else this.list.insertBefore(row.element, next);
      row.render(item, context);
    }
  }
}

class QueueRow {
  #name = h("span", { class: "name" });
  #depth = h("span", { class: "number" });
  #bar = new SegmentBar();
  #who = h("span", { class: "who" });

  constructor() {
    this.element = h("li", { class: "queue" }, h("div", { class: "line" }, this.#name, this.#depth), this.#bar.element, this.#who);
  }

  render(queue, { longest }) {
    const { name, pending, consumers } = queue;
    setText(this.#name, name);
    setAttribute(this.#name, "title", name);
    setText(this.#depth, count(pending));
    setAttribute(this.#depth, "title", Number.isFinite(pending) ? `${plural(pending, "task", "tasks")} in the broker` : "how many wait is not known");
    this.#bar.set(Number.isFinite(pending) ? queue : {}, lengthOf(queue) / longest);
    // Only where it is known that nobody is there, and somebody would have to be.
    setAttribute(this.#who, "data-warning", consumers === 0 && pending > 0);
    setText(this.#who, consumers === 0 ? "No workers" : Number.isFinite(consumers) ? plural(consumers, "worker") : "");
  }
}

class WorkerRow {
  #name = h("span", { class: "name" });
  #use = h("span", { class: "number" });
  #slots = h("div", { class: "slots", "aria-hidden": "true" });
  #seen = h("span", { class: "who" });

  constructor() {
    this.element = h("li", { class: "worker" }, h("div", { class: "line" }, this.#name, this.#use), this.#slots, this.#seen);
  }

  render(worker, { now }) {
    const { worker: name, status, concurrency, active, lost_at: lostAt, timestamp, started_at: started, pool } = worker;
    const gone = status === "offline";
    const slots = Number.isFinite(concurrency) ? concurrency : null;
    setText(this.#name, name);
    setAttribute(this.#name, "title", name);
    setAttribute(this.element, "data-status", gone && lostAt ? "lost" : status);
    setText(this.#use, gone ? "" : slots === null ? count(active) : `${count(active)} ⁄ ${count(slots)}`);
    setAttribute(this.#use, "title", gone ? null : "slots in use");
    setAttribute(this.#slots, "hidden", gone);
    if (!gone) this.#drawSlots(active, slots);
    const since = lostAt ?? timestamp;
    if (gone && lostAt) setText(this.#seen, `Lost, last seen ${roughly(now - lostAt)} ago`);
    else if (gone) setText(this.#seen, since ? `Stopped ${roughly(now - since)} ago` : "Stopped");
    else if (status === "stopping") setText(this.#seen, "Stopping");
    else setText(this.#seen, [pool, started && `up ${roughly(now - started)}`].filter(Boolean).join(" · "));
  }

  #drawSlots(active, slots) {
    const drawn = slots !== null && slots <= SLOTS_DRAWN ? slots : 1;
    while (this.#slots.childElementCount > drawn) this.#slots.lastChild.remove();
    while (this.#slots.childElementCount < drawn) this.#slots.append(h("span", { class: "slot" }, h("span", { class: "used" })));
    [...this.#slots.children].forEach((slot, at) => {
      const used = drawn === slots ? Number(at < active) : slots ? Math.min(1, active / slots) : 0;
      setStyle(slot.firstChild, "transform", `scaleX(${used})`);
    });
  }
}

