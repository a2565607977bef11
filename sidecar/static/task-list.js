import { BrokerTasks } from "./broker-tasks.js";
import { h, setAttribute, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { ListBar } from "./list-bar.js";
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
const SEARCH_PAUSE_MS = 300;

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
  #next = null;
  #loading = null;
  #hits = { query: "", ids: new Set(), state: "" };
  #searching = 0;
  #wanted = { query: "", task_name: "", queue: "", worker: "" };
  #bar;
  #names = new Set();
  #broker = new BrokerTasks({ names: () => this.#queuesWithTasks(), taken: (ids) => this.#takePending(ids) });
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

  #takePending(ids) {
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
    if (task && this.#belongs(task) && this.#matches(task)) {
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

  #matches(task) {
    const { query, task_name: name, queue, worker } = this.#wanted;
    if ((name && task.task_name !== name) || (queue && task.queue !== queue) || (worker && task.worker !== worker)) return false;
    if (!query) return true;
    const known = [task.task_name, task.task_id, task.args, task.kwargs];
    const found = known.join("\n").toLowerCase().includes(query);
    return found || (this.#hits.query === query && this.#hits.ids.has(task.task_id));
  }

  #restart() {
    this.#records.clear();
    this.#leaving.clear();
    this.#order.clear();
    this.#view.clear();
    this.#view.scrollToTop();
    this.#next = null;
    this.#loading?.abort();
    this.#loading = null;
    this.#broker.clear();
    this.parts.note.textContent = "";
    if (!this.#queue) return;
    this.#take({ ids: new Set(this.#queue.tasks.keys()) });
    if (TABS[this.tab].asked) this.#load();
    if (this.tab === "waiting") this.#broker.refresh();
  }

  #queuesWithTasks() {
    const { queue } = this.#wanted;
    const waiting = (this.#queue.status?.queues ?? []).filter(({ name, pending }) => pending !== 0 && (!queue || name === queue));
    return waiting.map(({ name }) => name).filter((name) => this.#queue.admitsQueue(name));
  }

  async #load(cursor = null) {
    const loading = (this.#loading = new AbortController());
    try {
      const { tasks, next } = await this.#queue.ask("history", this.#question(cursor), { signal: loading.signal });
      if (this.#loading !== loading) return;
      this.#next = this.#records.size < HISTORY_MAX ? next : null;
      for (const task of tasks) if (!this.#records.has(task.task_id)) this.#add(task);
      this.#loading = null;
    } catch (error) {
      if (this.#loading !== loading) return;
      this.#loading = null;
      this.#next = null;
      setText(this.parts.note, error.status === 503 ? "The history cannot be read while Redis is unreachable." : `The history cannot be read: ${error.message}.`);
    }
    this.#changed();
  }

  #add(task) {
    if (task.task_name) this.#names.add(task.task_name);
    this.#records.set(task.task_id, task);
    this.#order.set(task.task_id, TABS[this.tab].key(task));
  }

  #question(cursor) {
    const { query, ...exact } = this.#wanted;
    const given = Object.entries({ q: query, ...exact, cursor }).filter(([, value]) => value);
    return { status: TABS[this.tab].asked, limit: PAGE, ...Object.fromEntries(given) };
  }

  #filter(wanted) {
    Object.assign(this.#wanted, wanted);
    clearTimeout(this.#searching);
    const { query } = this.#wanted;
    if (query && !TABS[this.tab].asked) {
      this.#hits = { query, ids: new Set(), state: "searching" };
      this.#searching = setTimeout(() => this.#searchArguments(query), SEARCH_PAUSE_MS);
      this.#restart();
    } else if (TABS[this.tab].asked && wanted.query !== undefined) {
      this.#searching = setTimeout(() => this.#restart(), SEARCH_PAUSE_MS);
    } else this.#restart();
    this.#changed();
  }

  // Names and ids are here; what tasks were called with only the sidecar knows.
  async #searchArguments(query) {
    const hits = this.#hits;
    try {
      const { tasks } = await this.#queue.ask("tasks", { q: query, limit: 1000 });
      hits.ids = new Set(tasks.map((task) => task.task_id));
      hits.state = "found";
    } catch {
      hits.state = "failed";
    }
    if (this.#hits !== hits) return;
    this.apply({ ids: hits.ids });
    this.#changed();
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
    if (this.tab === "waiting") setText(note, this.#notListed());
    else if (this.tab === "active") setText(note, "");
    setAttribute(all, "hidden", this.tab !== "waiting" || !this.#queue.truncated);
    if (this.#view.below > 600) return;
    if (this.tab === "waiting") this.#broker.more();
    else if (this.#next && !this.#loading) this.#load(this.#next);
  }

  #renderEmpty() {
    const [title, line] = this.parts.empty.children;
    const { status, connection } = this.#queue;
    const filtered = Object.values(this.#wanted).some(Boolean);
    const waiting = waitingIn(status);
    const busy = this.#loading || (this.tab === "waiting" && this.#broker.busy) || (status === null && connection === "connecting");
    const unknown = status === null && connection !== "live";
    const searching = this.#wanted.query && this.#hits.state === "searching";
    const hidden = this.tab === "waiting" && waiting !== 0;
    const { empty, asked } = TABS[this.tab];
    setText(title, busy ? "Loading…" : unknown ? "Not known." : searching ? "Searching arguments…" : filtered ? "No task matches." : hidden ? "Nothing to list." : empty);
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
