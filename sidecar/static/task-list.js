import { BrokerTasks } from "./broker-tasks.js";
import { h, setAttribute, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { HistoryTasks } from "./history-tasks.js";
import { ListBar } from "./list-bar.js";
import { Narrowing } from "./narrowing.js";
import { ENDED, WAITING } from "./states.js";
import { ShownOrder } from "./shown-order.js";
import { waitingIn } from "./store.js";
import { TABS } from "./tabs.js";
import { TaskRow } from "./task-row.js";
import { WindowedList } from "./windowed-list.js";

// How long a task that has ended stays among those that run, so that one sees how it ended.
const LEAVING_MS = 5000;
// Where many end a second nobody can read them all.
const LEAVING_MAX = 50;
const HISTORY_MAX = 5000;
const PAGE = 100;

/** The tabs, the filters, and the list of tasks below them. */
export class TaskList {
  tab = "active";
  fetched = new Map();
  #queue = null;
  #records = new Map();
  #order = new ShownOrder();
  #leaving = new Map();
  #open = new Set();
  #dirty = null;
  #view;
  #wanted = new Narrowing();
  #history = new HistoryTasks({ question: () => ({ ...this.#wanted.question, status: TABS[this.tab].asked, limit: PAGE }), took: (tasks) => this.#takeEnded(tasks) });
  #bar;
  #names = new Set();
  #broker = new BrokerTasks({ names: () => this.#queuesWithTasks(), taken: (ids) => this.#takeMore(ids) });
  #hovered = false;
  #focused = null;
  #changed;
  #goTo;
  #say;

  /** `changed` asks for a frame, `goTo(id)` opens a task's page, `say` tells a screen reader. */
  constructor({ changed, goTo, say, extraTab }) {
    this.#changed = changed;
    this.#goTo = goTo;
    this.#say = say;
    this.#build(extraTab);
  }

  follow(queue) {
    this.#queue = queue;
    this.#broker.follow(queue);
    this.#restart();
  }

  // What a row needs.
  record = (id) => this.#records.get(id);
  isCurrent = (id) => this.#order.has(id);
  isOpen = (id) => this.#open.has(id);
  now = () => this.#queue.now();
  openPage = (id) => this.#goTo(id);
  fetchTask = async (id) => this.#broker.records.get(id) ?? this.#queue.fetchTask(id);
  watch = (id, details) => this.#view.watch(id, details);
  unwatch = (id, details) => this.#view.unwatch(id, details);

  setOpen(id, open) {
    if (open) this.#open.add(id);
    else this.#open.delete(id);
    this.#focused = id;
    this.#changed();
  }

  /** Take changes of the store. */
  apply(detail) {
    // Before anything moves.
    if (this.#isRead()) this.#order.hold();
    // What a worker has told of is no longer as it was in the broker.
    for (const id of detail.ids) if (this.#queue.getTask(id)) this.#broker.records.delete(id);
    this.#take(detail);
  }

  #takeMore(ids) {
    if (this.#isRead()) this.#order.hold();
    this.#take({ ids });
    this.#changed();
  }

  #take({ ids, all, left = false }) {
    if (all) ids = new Set([...ids, ...this.#queue.tasks.keys(), ...(TABS[this.tab].asked ? [] : this.#records.keys())]);
    for (const id of ids) this.#place(id, left ? undefined : this.#recordOf(id));
    if (!left) this.#leave(() => this.#leaving.size > LEAVING_MAX);
    if (this.#dirty === null) this.#dirty = new Set();
    for (const id of ids) this.#dirty.add(id);
  }

  #recordOf(id) {
    return (this.tab === "waiting" && this.#broker.records.get(id)) || this.#queue.tasks.get(id);
  }

  /** Once a second: clocks, and what has been shown for long enough, or has to be asked for again. */
  tick() {
    if (this.tab === "waiting" && !this.#isRead() && document.visibilityState === "visible") this.#broker.refresh();
    const before = Date.now() - LEAVING_MS;
    this.#leave((at) => at <= before);
    for (const row of this.#view.rows.values()) row.tick();
  }

  #leave(isOver) {
    const over = [];
    for (const [id, at] of this.#leaving) {
      if (!isOver(at)) break;
      this.#leaving.delete(id);
      over.push(id);
    }
    if (over.length) this.apply({ ids: new Set(over), left: true });
    if (over.length) this.#changed();
  }

  /** Once a frame. */
  render() {
    if (this.#isRead()) this.#order.hold();
    else this.#catchUp();
    const dirty = this.#dirty ?? new Set();
    this.#dirty = null;
    this.#view.render(dirty);
    this.#rove();
    this.#renderBar();
    this.#renderEnds();
  }

  search() {
    this.#bar.focus();
  }

  /** Leave the search; tells whether there was one. */
  clearSearch() {
    const was = this.#bar.clear();
    if (was) this.#filter({ query: "" });
    return was;
  }

  select(tab) {
    if (tab === this.tab) return;
    this.tab = tab;
    this.#broker.clear();
    this.#restart();
    this.#changed();
  }

  #isRead() {
    return this.#hovered || this.#view.scrolled || this.parts.list.contains(this.#active());
  }

  #active() {
    return this.parts.list.getRootNode().activeElement;
  }

  #catchUp() {
    for (const id of this.#order.release()) {
      this.#records.delete(id);
      this.#open.delete(id);
    }
  }

  #place(id, task) {
    if (task?.task_name) this.#names.add(task.task_name);
    if (task && this.#belongs(task) && this.#wanted.matches(task)) {
      // Of its own among the ended a task has the place of its first end.
      if (!this.#records.has(id) || !TABS[this.tab].asked) this.#order.set(id, TABS[this.tab].key(task));
      this.#records.set(id, task);
      return;
    }
    if (TABS[this.tab].asked) return;
    this.#order.delete(id);
    if (!this.#order.shows(id)) this.#forget(id);
    else if (task) this.#records.set(id, task);
  }

  // Told again, a task that has left must not come back for the rest of its time.
  #hasLeft(id) {
    const known = this.#records.get(id);
    return known !== undefined && ENDED.has(known.status) && !this.#leaving.has(id);
  }

  #forget(id) {
    this.#records.delete(id);
    this.#open.delete(id);
    this.fetched.delete(id);
  }

  #belongs(task) {
    const { status, task_id: id } = task;
    const { asked } = TABS[this.tab];
    if (asked) return asked.includes(status) && (status !== "lost" || this.#queue.endedAt(id) !== undefined);
    if (this.tab === "waiting") return WAITING.has(status) || status === "pending";
    if (status === "active" || status === "lost") return true;
    const endedAt = this.#queue.endedAt(id);
    if (!ENDED.has(status) || endedAt === undefined || endedAt + LEAVING_MS <= Date.now()) return false;
    if (this.#hasLeft(id)) return false;
    this.#leaving.set(id, endedAt);
    return true;
  }

  #restart() {
    this.#records.clear();
    this.#leaving.clear();
    this.#order.clear();
    this.#view.clear();
    this.#view.scrollToTop();
    this.#history.clear();
    if (!this.#queue) return;
    this.#take({ ids: new Set([...this.#queue.tasks.keys(), ...this.#broker.records.keys()]) });
    if (TABS[this.tab].asked) this.#history.begin(this.#queue);
    if (this.tab === "waiting") this.#broker.refresh();
  }

  #queuesWithTasks() {
    const { queue } = this.#wanted;
    const waiting = (this.#queue.status?.queues ?? []).filter(({ name, pending }) => pending !== 0 && (!queue || name === queue));
    return waiting.map(({ name }) => name).filter((name) => this.#queue.admitsQueue(name));
  }

  #takeEnded(tasks) {
    for (const task of tasks) if (!this.#records.has(task.task_id)) this.#add(task);
    this.#changed();
    return this.#records.size < HISTORY_MAX;
  }

  #add(task) {
    if (task.task_name) this.#names.add(task.task_name);
    this.#records.set(task.task_id, task);
    this.#order.set(task.task_id, TABS[this.tab].key(task));
  }

  #filter(wanted) {
    const { asked } = TABS[this.tab];
    this.#wanted.set(wanted);
    if (wanted.queue !== undefined) this.#broker.clear();
    if (asked && wanted.query !== undefined) return this.#wanted.settled(() => this.#restart());
    this.#restart();
    if (!asked) this.#wanted.search(this.#queue, (ids) => this.#takeHits(ids));
    this.#changed();
  }

  #takeHits(ids) {
    this.#takeMore(ids);
    this.#say(plural(this.#order.ids.length, "task found", "tasks found"));
  }

  #build(extraTab) {
    const list = h("ul", { class: "tasks", role: "list", "aria-label": "Tasks" });
    const note = h("p", { class: "note quiet" });
    const all = h("button", { class: "text-button list-all", type: "button", text: "List all", hidden: true, on: { click: () => this.#queue.listAll() } });
    const empty = h("div", { class: "empty" }, h("p", { class: "empty-title" }), h("p", { class: "quiet" }));
    const scroller = h("div", { class: "scroller", id: "tasks", role: "tabpanel" }, list, empty, note, all);
    const fresh = h("button", { class: "fresh", type: "button", hidden: true, on: { click: () => this.#showFresh() } });
    this.#bar = new ListBar({ select: (tab) => this.select(tab), filter: (wanted) => this.#filter(wanted), extraTab });
    this.parts = { list, note, all, empty, scroller, fresh };
    this.element = h("div", { class: "list" }, this.#bar.element, h("div", { class: "list-body" }, fresh, scroller));
    this.#view = new WindowedList(scroller, list, { ids: () => this.#order.ids, make: (id) => new TaskRow(id, this), onChange: () => this.#changed() });
    list.addEventListener("keydown", (event) => this.#moveRow(event));
    list.addEventListener("focusin", (event) => {
      this.#focused = event.target.closest("[data-task-id]")?.dataset.taskId ?? null;
    });
    list.addEventListener("focusout", () => this.#changed());
    // A finger leaves no pointer behind.
    list.addEventListener("pointerenter", (event) => (this.#hovered = event.pointerType !== "touch"));
    list.addEventListener("pointerleave", () => {
      this.#hovered = false;
      this.#changed();
    });
  }

  #moveRow(event) {
    const { ids } = this.#order;
    const at = ids.indexOf(this.#focused);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: ids.length - 1 }[event.key];
    if (to === undefined || !ids[to] || !event.target.classList.contains("head")) return;
    event.preventDefault();
    this.#order.hold();
    this.#view.reveal(ids[to]);
    this.#focused = ids[to];
    this.#view.render(new Set());
    this.#rove();
    this.#view.rows.get(ids[to])?.head.focus({ preventScroll: true });
  }

  // Only one row is a stop of the Tab key; from there the arrows go on.
  #rove() {
    const { rows } = this.#view;
    const stop = rows.has(this.#focused) ? this.#focused : rows.keys().next().value;
    for (const [id, row] of rows) setAttribute(row.head, "tabindex", id === stop ? "0" : "-1");
  }

  #showFresh() {
    this.#hovered = false;
    this.#active()?.blur?.();
    this.#view.scrollToTop();
    this.#changed();
  }

  #renderBar() {
    const { status, workers } = this.#queue;
    this.#bar.render(this.tab, { active: status?.active_tasks, waiting: waitingIn(status) });
    this.#bar.offer("task_name", [...this.#names]);
    this.#bar.offer("queue", (status?.queues ?? []).map((queue) => queue.name));
    this.#bar.offer("worker", [...workers.values()].map((worker) => worker.worker));
    setAttribute(this.parts.scroller, "aria-label", TABS[this.tab].word);
  }

  #renderEnds() {
    const { fresh, empty, note, all } = this.parts;
    const waiting = this.#order.fresh.size;
    setAttribute(fresh, "hidden", waiting === 0);
    if (waiting) setText(fresh, `+${count(waiting)} new`);
    const nothing = this.#order.ids.length === 0;
    setAttribute(empty, "hidden", !nothing);
    if (nothing) this.#renderEmpty();
    setText(note, this.tab === "waiting" ? this.#notListed() : this.#history.why);
    setAttribute(all, "hidden", this.tab !== "waiting" || !this.#queue.truncated);
    if (this.#view.below > 600) return;
    if (this.tab === "waiting") this.#broker.more();
    else this.#history.more();
  }

  #renderEmpty() {
    const [title, line] = this.parts.empty.children;
    const { status, connection } = this.#queue;
    const filtered = this.#wanted.any;
    const waiting = waitingIn(status);
    const busy = this.#history.busy || (this.tab === "waiting" && this.#broker.busy) || (status === null && connection === "connecting");
    const unknown = status === null && connection !== "live";
    const hidden = this.tab === "waiting" && waiting !== 0;
    const { empty, asked } = TABS[this.tab];
    setText(title, busy ? "Loading…" : unknown ? "Not known." : this.#wanted.searching ? "Searching arguments…" : filtered ? "No task matches." : hidden ? "Nothing to list." : empty);
    const nobody = status?.workers_online === 0 ? "No worker with the plugin is online." : "";
    setText(line, busy || filtered || asked ? "" : waiting && this.tab === "active" ? `${plural(waiting, "task waits", "tasks wait")}. ${nobody}` : nobody);
  }

  /** What waits and is not in the list. */
  #notListed() {
    const { status, truncated, waitingTotal } = this.#queue;
    const lines = [this.#broker.why];
    const rest = status?.pending_tasks - this.#broker.records.size;
    if (status?.pending_tasks === null) lines.push("How many tasks wait in the broker is not known.");
    else if (rest > 0 && (this.#broker.why || this.#broker.hasMore)) lines.push(`${plural(rest, "more task waits", "more tasks wait")} in the broker.`);
    if (truncated) lines.push(`Of ${plural(waitingTotal, "task")} that workers held the first are listed; search finds the others.`);
    return lines.filter(Boolean).join(" ");
  }
}
