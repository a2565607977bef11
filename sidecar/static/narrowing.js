const TYPING_MS = 300;
const HITS_MAX = 1000;

/** What the user wants to see of a list: a name, a queue, a worker, a text. */
export class Narrowing {
  searching = false;
  #wanted = { query: "", task_name: "", queue: "", worker: "" };
  #hits = new Set();
  #timer = 0;

  get any() {
    return Object.values(this.#wanted).some(Boolean);
  }

  get queue() {
    return this.#wanted.queue;
  }

  /** As parameters of a question. */
  get question() {
    const { query, ...exact } = this.#wanted;
    return Object.fromEntries(Object.entries({ q: query, ...exact }).filter(([, value]) => value));
  }

  set(wanted) {
    Object.assign(this.#wanted, wanted);
    clearTimeout(this.#timer);
    this.searching = false;
  }

  /** Call when nobody has typed for a moment. */
  settled(call) {
    this.#timer = setTimeout(call, TYPING_MS);
  }

  matches(task) {
    const { query, task_name: name, queue, worker } = this.#wanted;
    if ((name && task.task_name !== name) || (queue && task.queue !== queue) || (worker && task.worker !== worker)) return false;
    if (!query) return true;
    const known = [task.task_name, task.task_id, task.args, task.kwargs];
    return known.join("\n").toLowerCase().includes(query) || this.#hits.has(task.task_id);
  }

  /** Names and ids are here; what tasks were called with only the sidecar knows. `found(ids)` are those. */
  search(queue, found) {
    const { query } = this.#wanted;
    this.#hits = new Set();
    this.searching = query !== "";
    if (!query) return;
    this.settled(async () => {
      const { tasks } = await queue.ask("tasks", { q: query, limit: HITS_MAX }).catch(() => ({ tasks: [] }));
      if (query !== this.#wanted.query) return;
      this.searching = false;
      this.#hits = new Set(tasks.map((task) => task.task_id));
      found(this.#hits);
    });
  }
}
