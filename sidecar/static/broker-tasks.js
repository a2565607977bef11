import { ENDED } from "./states.js";

const PAGE_TASKS = 100;
const AGAIN_MS = 5000;

/**
 * What waits in the broker, queue by queue in the order in which it is taken. No stream tells of it: it is asked
 * for while somebody looks.
 */
export class BrokerTasks {
  /** id → a record as the store has them, with its `order`. */
  records = new Map();
  /** Why it cannot be listed. */
  why = "";
  #queue;
  #names;
  #taken;
  /** Where it goes on: `{at, cursor}`, the number of the queue and the place in it. */
  #next = null;
  #asking = null;
  #askedAt = 0;

  /** `names()` are the queues, `taken(ids)` is told what came or went. */
  constructor({ names, taken }) {
    this.#names = names;
    this.#taken = taken;
  }

  follow(queue) {
    this.#queue = queue;
    this.clear();
  }

  clear() {
    this.records = new Map();
    this.why = "";
    this.#next = this.#asking = null;
    this.#askedAt = 0;
  }

  get hasMore() {
    return this.#next !== null;
  }

  get busy() {
    return this.#asking !== null;
  }

  /** Begin anew, if that was not done just now. */
  refresh() {
    if (!this.#asking && Date.now() - this.#askedAt >= AGAIN_MS) this.#ask({ at: 0, cursor: null }, new Map());
  }

  /** Go on behind what is here. */
  more() {
    if (!this.#asking && this.#next) this.#ask(this.#next, new Map(this.records));
  }

  async #ask(from, records) {
    const asking = (this.#asking = { names: this.#names(), since: Date.now() });
    this.#askedAt = asking.since;
    const failed = await this.#fill(asking, from, records).catch((error) => error);
    if (this.#asking !== asking) return;
    this.#asking = null;
    this.why = failed ? reason(failed) : "";
    // While Redis is away what was known stays.
    if (failed && failed.status !== 501) return;
    const before = this.records;
    this.records = failed ? new Map() : records;
    this.#taken(new Set([...before.keys(), ...this.records.keys()]));
  }

  async #fill({ names, since }, { at, cursor }, records) {
    const enough = records.size + PAGE_TASKS;
    for (; at < names.length && records.size < enough; at += cursor ? 0 : 1) {
      const parameters = { queue: names[at], limit: PAGE_TASKS, ...(cursor ? { cursor } : {}) };
      const answer = await this.#queue.ask("pending", parameters, { filtered: false }).catch(noneIfUnknown);
      for (const task of answer.tasks) this.#add(task, names[at], since, records);
      cursor = answer.next;
    }
    this.#next = at < names.length ? { at, cursor } : null;
  }

  #add(task, name, since, records) {
    const id = task.task_id ?? `${name} ${task.position}`;
    if (!records.has(id) && !this.#hasLeft(id, since)) records.set(id, { ...task, task_id: id, status: "pending", queue: name, order: records.size });
  }

  // What the stream has told meanwhile is newer than the answer.
  #hasLeft(id, since) {
    const { status } = this.#queue.getTask(id) ?? {};
    if (ENDED.has(status)) return status !== "retrying" && this.#queue.endedAt(id) >= since;
    return status !== undefined && status !== "lost";
  }
}

const reason = ({ status }) => (status === 501 ? "What waits in this broker cannot be listed." : "What waits in the broker cannot be read.");

// A queue may be forgotten between its figure and the question.
function noneIfUnknown(error) {
  if (error.status !== 404) throw error;
  return { tasks: [], next: null };
}
