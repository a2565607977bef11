// What the store has seen of the last minutes, in steps of a few seconds.
const STEP_SECONDS = 5;
const STEPS = 60;

/** Keeps, for each step, how many waited at its end and how many tasks ended in it, well or not. */
export class Rates {
  static seconds = STEP_SECONDS * STEPS;
  #steps = [];

  waiting(number, now) {
    const step = this.#step(now);
    if (step) step.waiting = number;
  }

  ended(status, now) {
    const step = this.#step(now);
    if (!step || status === "retrying") return;
    if (status === "completed") step.completed++;
    else step.failed++;
  }

  /** The steps up to now, the oldest first; null for one in which nothing was known. */
  upTo(now) {
    const last = Math.floor(now / STEP_SECONDS);
    const found = new Map(this.#steps.map((step) => [step.at, step]));
    const first = this.#steps[0]?.at ?? last;
    let waiting = null;
    return Array.from({ length: STEPS }, (_, index) => {
      const at = last - STEPS + 1 + index;
      const step = found.get(at);
      waiting = step?.waiting ?? waiting;
      return at < first ? null : { at, waiting, completed: step?.completed ?? 0, failed: step?.failed ?? 0 };
    });
  }

  /** Tasks that ended well and not, a second, over the last minute or since it is known. */
  perSecond(now) {
    const steps = this.upTo(now).slice(-13, -1).filter(Boolean);
    const seconds = steps.length * STEP_SECONDS;
    const sum = (name) => steps.reduce((total, step) => total + step[name], 0);
    return seconds ? { completed: sum("completed") / seconds, failed: sum("failed") / seconds } : null;
  }

  #step(now) {
    const at = Math.floor(now / STEP_SECONDS);
    const last = this.#steps.at(-1);
    if (last && at <= last.at) return last;
    const step = { at, waiting: last?.waiting ?? null, completed: 0, failed: 0 };
    this.#steps.push(step);
    while (this.#steps[0].at <= at - STEPS) this.#steps.shift();
    return step;
  }
}
