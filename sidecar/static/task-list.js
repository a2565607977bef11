import { ICONS, h, icon, setAttribute, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { ENDED, WAITING } from "./states.js";
import { ShownOrder } from "./shown-order.js";
import { waitingIn } from "./store.js";
import { TaskRow } from "./task-row.js";
import { WindowedList } from "./windowed-list.js";

// How long a task that has ended stays among those that run, so that one sees how it ended.
const LEAVING_MS = 5000;
// Where many end a second nobody can read them all.
const LEAVING_MAX = 50;
const HISTORY_MAX = 5000;
const PAGE = 100;
const SEARCH_PAUSE_MS = 300;

const byEnd = (task) => -(task.finished_at ?? task.lost_at ?? task.timestamp ?? 0);

// What runs stands above what has just ended.
const byStart = (task) => (ENDED.has(task.status) ? 1e11 + byEnd(task) : -(task.started_at ?? task.received_at ?? task.timestamp ?? 0));

// `key` must not change while a task is in a state, or it would jump; `asked` tabs begin with the history.
const TABS = {
  active: { word: "Active", empty: "Nothing is running.", key: byStart },
  waiting: { word: "Waiting", empty: "No worker holds a task that waits.", key: (task) => (task.status === "scheduled" ? 1e12 + (task.eta ?? 0) : (task.received_at ?? 0)) },
  finished: { word: "Finished", empty: "Nothing has finished yet.", key: byEnd, asked: ["completed", "revoked"] },
  failed: { word: "Failed", empty: "Nothing has failed. Good.", key: byEnd, asked: ["failed", "lost", "rejected"] },
};

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
  #tabs = {};
  #names = new Set();
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
    this.#restart();
  }

  // What a row needs.
  record = (id) => this.#records.get(id);
  isCurrent = (id) => this.#order.has(id);
  isOpen = (id) => this.#open.has(id);
  now = () => this.#queue.now();
  openPage = (id) => this.#goTo(id);
  fetchTask = (id) => this.#queue.fetchTask(id);
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
    this.#take(detail);
  }

  #take({ ids, all, left = false }) {
    if (all) ids = new Set([...ids, ...this.#queue.tasks.keys(), ...(TABS[this.tab].asked ? [] : this.#records.keys())]);
    for (const id of ids) this.#place(id, left ? undefined : this.#queue.tasks.get(id));
    if (!left) this.#leave(() => this.#leaving.size > LEAVING_MAX);
    if (this.#dirty === null) this.#dirty = new Set();
    for (const id of ids) this.#dirty.add(id);
  }

  /** Once a second: clocks, and what has been shown for long enough. */
  tick() {
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
    this.#renderTabs();
    this.#renderEnds();
    this.#renderChoices();
  }

  search() {
    this.parts.search.focus();
    this.parts.search.select();
  }

  /** Leave the search; tells whether there was one. */
  clearSearch() {
    const { search } = this.parts;
    if (!search.value) return false;
    search.value = "";
    this.#filter({ query: "" });
    return true;
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
    if (this.tab === "waiting") return WAITING.has(status);
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
    const found = `${task.task_name}\n${task.task_id}`.toLowerCase().includes(query);
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
    this.parts.note.textContent = "";
    if (!this.#queue) return;
    this.#take({ ids: new Set(this.#queue.tasks.keys()) });
    if (TABS[this.tab].asked) this.#load();
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
    const empty = h("div", { class: "empty" }, h("p", { class: "empty-title" }), h("p", { class: "quiet" }));
    const scroller = h("div", { class: "scroller", id: "tasks", role: "tabpanel" }, list, empty, note);
    const fresh = h("button", { class: "fresh", type: "button", hidden: true, on: { click: () => this.#showFresh() } });
    const search = h("input", { type: "search", placeholder: "Search name, id, arguments", "aria-label": "Search name, id or arguments", autocomplete: "off", spellcheck: "false" });
    const hint = h("kbd", { text: "/", title: "press / to search" });
    search.addEventListener("input", () => this.#filter({ query: search.value.trim().toLowerCase() }));
    const choices = Object.fromEntries(
      [["task_name", "Any task"], ["queue", "Any queue"], ["worker", "Any worker"]].map(([name, all]) => [name, this.#choice(name, all)]),
    );
    const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Which tasks" });
    this.#tabs = Object.fromEntries(Object.entries(TABS).map(([name, { word }]) => [name, this.#tab(name, word)]));
    tabs.append(...Object.values(this.#tabs).map(({ button }) => button), extraTab);
    tabs.addEventListener("keydown", (event) => this.#moveTab(event));
    const filters = h("div", { class: "filters" }, h("label", { class: "search" }, icon(ICONS.search, { size: 14 }), search, hint), ...Object.values(choices));
    const body = h("div", { class: "list-body" }, fresh, scroller);
    this.parts = { list, note, empty, scroller, fresh, search, choices, tabs, filters, body };
    this.element = h("div", { class: "list" }, h("div", { class: "bar-row" }, tabs, filters), body);
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

  #tab(name, word) {
    const number = h("span", { class: "tab-count" });
    const button = h("button", { class: "tab", role: "tab", type: "button", "data-tab": name, "aria-controls": "tasks", on: { click: () => this.select(name) } }, word, number);
    return { button, number };
  }

  #choice(name, all) {
    const select = h("select", { "aria-label": all.replace("Any ", "Only this "), "data-choice": name }, h("option", { value: "", text: all }));
    select.addEventListener("change", () => this.#filter({ [name]: select.value }));
    return select;
  }

  #moveTab(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const buttons = [...this.parts.tabs.querySelectorAll("[role=tab]")].filter((button) => button.offsetParent);
    const at = buttons.indexOf(event.target);
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
    event.preventDefault();
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

  #renderTabs() {
    const { status } = this.#queue;
    const counts = { active: status?.active_tasks, waiting: waitingIn(status) };
    for (const [name, { button, number }] of Object.entries(this.#tabs)) {
      const chosen = name === this.tab;
      setAttribute(button, "aria-selected", chosen ? "true" : "false");
      setAttribute(button, "tabindex", chosen ? "0" : "-1");
      setText(number, Number.isFinite(counts[name]) ? count(counts[name]) : "");
    }
    setAttribute(this.parts.scroller, "aria-label", TABS[this.tab].word);
  }

  #renderEnds() {
    const { fresh, empty, note } = this.parts;
    const waiting = this.#order.fresh.size;
    setAttribute(fresh, "hidden", waiting === 0);
    if (waiting) setText(fresh, `+${count(waiting)} new`);
    const nothing = this.#order.ids.length === 0;
    setAttribute(empty, "hidden", !nothing);
    if (nothing) this.#renderEmpty();
    if (this.tab === "waiting") setText(note, this.#elsewhere());
    else if (this.tab === "active") setText(note, "");
    if (this.#next && !this.#loading && this.#view.below < 600) this.#load(this.#next);
  }

  #renderEmpty() {
    const [title, line] = this.parts.empty.children;
    const filtered = Object.values(this.#wanted).some(Boolean);
    const busy = this.#loading || (this.#queue.status === null && this.#queue.connection === "connecting");
    const unknown = this.#queue.status === null && this.#queue.connection !== "live";
    const searching = this.#wanted.query && this.#hits.state === "searching";
    setText(title, busy ? "Loading…" : unknown ? "Not known." : searching ? "Searching arguments…" : filtered ? "No task matches." : TABS[this.tab].empty);
    const waiting = waitingIn(this.#queue.status);
    const nobody = this.#queue.status?.workers_online === 0 ? "No worker with the plugin is online." : "";
    setText(line, busy || filtered || TABS[this.tab].asked ? "" : waiting && this.tab === "active" ? `${plural(waiting, "task waits", "tasks wait")}. ${nobody}` : nobody);
  }

  /** What waits where no list shows it. */
  #elsewhere() {
    const { status, truncated } = this.#queue;
    const pending = status?.pending_tasks;
    const lines = [];
    if (truncated) lines.push("Of what workers hold only the first are listed here; search finds the others.");
    if (pending) lines.push(`${plural(pending, "more task waits", "more tasks wait")} in the broker, held by no worker yet.`);
    return lines.join(" ");
  }

  #renderChoices() {
    const { status, workers } = this.#queue;
    this.#offer("task_name", [...this.#names]);
    this.#offer("queue", (status?.queues ?? []).map((queue) => queue.name));
    this.#offer("worker", [...workers.values()].map((worker) => worker.worker));
  }

  #offer(name, values) {
    const select = this.parts.choices[name];
    if (values.length === select.options.length - 1 && name === "task_name") return; // Names only come.
    const offered = [...new Set(values)].filter(Boolean).sort();
    if (offered.length === select.options.length - 1 && offered.every((value, at) => select.options[at + 1].value === value)) return;
    if (this.#active() === select) return; // It may be open.
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...offered.map((value) => h("option", { value, text: value })));
    select.value = offered.includes(chosen) ? chosen : "";
  }
}
