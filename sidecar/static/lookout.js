const FIRST_PAUSE = 4000;
const LONGEST_PAUSE = 30_000;

/** Looks again and again, ever more seldom and only while somebody sees the page, until there is nothing to see. */
export class Lookout {
  #look;
  #timer = 0;

  /** `look` is asynchronous, and false when it was the last time. */
  constructor(look) {
    this.#look = look;
  }

  /** Nothing, if it looks already. */
  start() {
    if (!this.#timer) this.#wait(FIRST_PAUSE);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #wait(pause) {
    // By chance, or pages that were opened together would ask together.
    const timer = (this.#timer = setTimeout(async () => {
      const goesOn = globalThis.document?.visibilityState === "hidden" || (await this.#look());
      if (this.#timer !== timer) return;
      this.#timer = 0;
      if (goesOn) this.#wait(Math.min(pause * 1.4, LONGEST_PAUSE));
    }, pause * (0.75 + Math.random() / 2)));
  }
}
