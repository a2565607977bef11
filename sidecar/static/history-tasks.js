/** What had ended before somebody looked, page by page, the last one first. */
export class HistoryTasks {
  /** Why it cannot be listed. */
  why = "";
  #queue;
  #question;
  #took;
  #next = null;
  #asking = null;

  /** `question()` are the parameters, `took(tasks)` is false when there is no room for more. */
  constructor({ question, took }) {
    this.#question = question;
    this.#took = took;
  }

  get busy() {
    return this.#asking !== null;
  }

  clear() {
    this.#asking?.abort();
    this.#asking = this.#next = null;
    this.why = "";
  }

  begin(queue) {
    this.#queue = queue;
    this.#ask({});
  }

  more() {
    if (this.#next && !this.#asking) this.#ask({ cursor: this.#next });
  }

  async #ask(from) {
    const asking = (this.#asking = new AbortController());
    const answer = await this.#queue.ask("history", { ...this.#question(), ...from }, { signal: asking.signal }).catch((error) => ({ error }));
    if (this.#asking !== asking) return;
    this.#asking = null;
    const { tasks = [], next = null, error } = answer;
    if (error) this.why = error.status === 503 ? "The history cannot be read while Redis is unreachable." : `The history cannot be read: ${error.message}.`;
    this.#next = this.#took(tasks) ? next : null;
  }
}
