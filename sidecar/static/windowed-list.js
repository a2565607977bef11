import { setAttribute, setStyle } from "./dom.js";

export const ROW_HEIGHT = 60;
const OVERSCAN = 6;

/**
 * A list of which only the rows in sight are in the page. All rows are equally high but for the few that are
 * open: their details are measured.
 *
 * `make(id)` makes a row, `{element, update(), details}`; `ids()` gives the order.
 */
export class WindowedList {
  #scroller;
  #list;
  #make;
  #ids;
  #rows = new Map();
  #extra = new Map();
  #height = 0;
  #resizes;
  #onChange;

  constructor(scroller, list, { ids, make, onChange }) {
    this.#scroller = scroller;
    this.#list = list;
    this.#make = make;
    this.#ids = ids;
    this.#onChange = onChange;
    this.#resizes = new ResizeObserver((entries) => this.#measure(entries));
    this.#resizes.observe(scroller);
    scroller.addEventListener("scroll", onChange, { passive: true });
  }

  /** The rows in sight. */
  get rows() {
    return this.#rows;
  }

  get scrolled() {
    return this.#scroller.scrollTop > 0;
  }

  scrollToTop() {
    this.#scroller.scrollTop = 0;
  }

  /** Bring a row into sight. */
  reveal(id) {
    const index = this.#ids().indexOf(id);
    if (index < 0) return;
    const top = this.#top(index, this.#open());
    const { scrollTop } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + this.#height) this.#scroller.scrollTop = top + ROW_HEIGHT - this.#height;
  }

  /** How far the end is, in pixels. */
  get below() {
    return this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#height;
  }

  watch(id, details) {
    details.dataset.row = id;
    this.#resizes.observe(details);
  }

  unwatch(id, details) {
    this.#resizes.unobserve(details);
    this.#extra.delete(id);
  }

  /** Put the rows in sight where they belong; those of `changed`, or all, are written anew. */
  render(changed = null) {
    const ids = this.#ids();
    const open = this.#open();
    setStyle(this.#list, "height", `${this.#top(ids.length, open)}px`);
    const wanted = this.#inSight(ids, open);
    for (const [id, row] of this.#rows) if (!wanted.has(id)) this.#drop(id, row);
    // In their order: a screen reader goes by the page, not by where the rows are painted. What stays is never
    // moved, for a row that is taken out and put in again loses the focus.
    let next = this.#list.firstChild;
    for (const [id, index] of wanted) {
      const known = this.#rows.get(id);
      const row = known ?? this.#add(id);
      if (row.element === next) next = next.nextSibling;
      else this.#list.insertBefore(row.element, next);
      setStyle(row.element, "transform", `translateY(${this.#top(index, open)}px)`);
      setAttribute(row.element, "aria-posinset", index + 1);
      setAttribute(row.element, "aria-setsize", ids.length);
      if (known && (changed === null || changed.has(id))) row.update();
    }
  }

  clear() {
    for (const [id, row] of this.#rows) this.#drop(id, row);
    this.#extra.clear();
  }

  #add(id) {
    const row = this.#make(id);
    this.#rows.set(id, row);
    return row;
  }

  #drop(id, row) {
    if (row.details) this.#resizes.unobserve(row.details.element);
    row.element.remove();
    this.#rows.delete(id);
  }

  /** Id → index of the rows in sight and of the one with the focus, in order. */
  #inSight(ids, open) {
    const from = this.#scroller.scrollTop - OVERSCAN * ROW_HEIGHT;
    const to = this.#scroller.scrollTop + this.#height + OVERSCAN * ROW_HEIGHT;
    let index = Math.max(0, Math.floor((from - open.total) / ROW_HEIGHT));
    while (index < ids.length && this.#top(index + 1, open) < from) index++;
    const found = [];
    for (; index < ids.length && this.#top(index, open) < to; index++) found.push([ids[index], index]);
    const focused = this.#focused();
    if (focused && !found.some(([id]) => id === focused)) {
      const at = ids.indexOf(focused);
      if (at >= 0) found.push([focused, at]);
      found.sort((one, other) => one[1] - other[1]);
    }
    return new Map(found);
  }

  #focused() {
    const active = this.#list.getRootNode().activeElement;
    return active?.closest?.("[data-task-id]")?.dataset.taskId ?? null;
  }

  /** The open rows by index, with what they are higher than the others. */
  #open() {
    const rows = [];
    let total = 0;
    for (const [id, extra] of this.#extra) {
      const index = this.#ids().indexOf(id);
      if (index < 0) continue;
      rows.push([index, extra]);
      total += extra;
    }
    return { rows, total };
  }

  #top(index, open) {
    let top = index * ROW_HEIGHT;
    for (const [at, extra] of open.rows) if (at < index) top += extra;
    return top;
  }

  #measure(entries) {
    for (const { target } of entries) {
      if (target === this.#scroller) this.#height = target.clientHeight;
      else if (target.isConnected) this.#extra.set(target.dataset.row, target.offsetHeight);
    }
    this.#onChange();
  }
}
