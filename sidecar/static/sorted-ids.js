/** Ids in the order of a number each; put in and taken out one at a time, 10,000 are never sorted for one. */
export class SortedIds {
  list = [];
  #keys = new Map();

  /** Put an id in, or to its new place; tells whether anything moved. */
  set(id, key) {
    if (this.#keys.get(id) === key) return false;
    this.delete(id);
    this.#keys.set(id, key);
    this.list.splice(this.#place(id, key), 0, id);
    return true;
  }

  delete(id) {
    const key = this.#keys.get(id);
    if (key === undefined) return false;
    this.list.splice(this.#place(id, key), 1);
    return this.#keys.delete(id);
  }

  has(id) {
    return this.#keys.has(id);
  }

  /** Whether an id stands behind another one; both are there or were. */
  isBehind(id, other) {
    return this.#keys.has(other) && this.#order(id, this.#keys.get(id), other) > 0;
  }

  clear() {
    this.list = [];
    this.#keys.clear();
  }

  #place(id, key) {
    let [low, high] = [0, this.list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#order(id, key, this.list[middle]) > 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #order(id, key, other) {
    const otherKey = this.#keys.get(other);
    return key - otherKey || (id < other ? -1 : Number(id > other));
  }
}
