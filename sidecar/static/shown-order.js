import { SortedIds } from "./sorted-ids.js";

/**
 * The order in which rows are shown. While somebody reads (`hold`) no row moves: what has left stays where it
 * was, and what would go in between waits in `fresh`; only behind the last row may more come.
 */
export class ShownOrder {
  #order = new SortedIds();
  #held = null;
  #heldIds = null;
  fresh = new Set();

  get ids() {
    return this.#held ?? this.#order.list;
  }

  get held() {
    return this.#held !== null;
  }

  has(id) {
    return this.#order.has(id);
  }

  /** Whether a row is shown, perhaps only because nothing may move. */
  shows(id) {
    return this.#heldIds?.has(id) || (this.#held === null && this.#order.has(id));
  }

  set(id, key) {
    this.#order.set(id, key);
    if (this.#held === null || this.#heldIds.has(id)) return;
    const last = this.#held.at(-1);
    if (last === undefined || this.#order.isBehind(id, last)) this.#append(id);
    else this.fresh.add(id);
  }

  delete(id) {
    this.#order.delete(id);
    this.fresh.delete(id);
  }

  clear() {
    this.#order.clear();
    this.release();
  }

  hold() {
    if (this.#held !== null) return;
    this.#held = [...this.#order.list];
    this.#heldIds = new Set(this.#held);
  }

  /** Show what is; returns the ids that were shown and are no longer there. */
  release() {
    const gone = (this.#held ?? []).filter((id) => !this.#order.has(id));
    this.#held = this.#heldIds = null;
    this.fresh.clear();
    return gone;
  }

  #append(id) {
    this.#held.push(id);
    this.#heldIds.add(id);
  }
}
