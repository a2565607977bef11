import { describe } from "./connection.js";
import { ICONS, copyButton, h, icon, setText } from "./dom.js";
import { clock, duration, moment, splitName } from "./format.js";
import { ENDED, stateOf } from "./states.js";
import { errorAndParameters, facts, section } from "./task-details.js";
import { StateMark, attemptText, taskClock, taskMessage } from "./task-parts.js";

const RELATIVES_ASKED = 500;
const MOVING = new Set(["progress", "message", "position", "offset", "updated_at", "timestamp"]);
const UNKNOWN = "No worker has seen this task, and it is neither among the first that wait nor in the history. It will be shown here as soon as it is.";

/** The page of one task: what failed first, then what it did when, with what, and for whom. */
export class TaskPage {
  #queue;
  #id;
  #goTo;
  #changed;
  /** A store of this task alone: it also knows what waits in the broker, or is outside of the filter. */
  #own;
  #mark = new StateMark();
  #clock = h("span", { class: "page-clock" });
  #message = h("p", { class: "page-message" });
  #body = h("div", { class: "page-body" }, h("p", { class: "quiet", text: "Loading…" }));
  #title = h("h2", { tabindex: "-1", text: "Task" });
  #timeline = [];
  #asked = "";
  #last = null;
  #shown = "";
  #children = new Map();

  /** `changed` asks for a frame. */
  constructor(queue, id, { goTo, changed }) {
    this.#queue = queue;
    this.#id = id;
    this.#goTo = goTo;
    this.#changed = changed;
    const back = h("button", { class: "back", type: "button", on: { click: () => goTo(null) } }, icon(ICONS.back, { size: 14 }), "All tasks");
    const state = h("div", { class: "page-state" }, this.#mark.icon, this.#mark.word, this.#clock);
    const name = h("div", { class: "page-name" }, this.#title, h("p", { class: "id" }, h("code", { text: id }), copyButton(id, "the task's id")));
    this.element = h("article", { class: "task-page" }, back, h("header", { class: "page-head" }, name, state), this.#message, this.#body);
    this.#open();
    this.#findChildren();
  }

  #open() {
    this.#own?.close();
    this.#own = this.#queue.ofTask(this.#id);
    this.#own.subscribe(this.#changed);
  }

  close() {
    this.#own.close();
  }

  focus() {
    this.#title.focus();
  }

  apply({ ids, all }) {
    // An id may be used again after its end.
    if (ids.has(this.#id) && this.#own.reason === "ended" && !ENDED.has(this.#queue.getTask(this.#id)?.status)) this.#open();
    // What was asked while the sidecar was away may have had no answer.
    if (all) this.#asked = "";
    for (const id of all ? this.#queue.tasks.keys() : ids) this.#take(this.#queue.tasks.get(id));
  }

  /** Once a second, and after each change. */
  render() {
    const task = this.#task();
    if (!task) return this.#renderNothing();
    this.#mark.set(task.status);
    this.element.dataset.status = task.status;
    setText(this.#clock, taskClock(task, this.#queue.now()).text);
    setText(this.#message, task.exception ? "" : taskMessage(task));
    this.#ask(task);
    this.#draw(task);
  }

  #renderNothing() {
    const { state, word, rest } = describe(this.#own);
    if (state !== "live") setText(this.#message, `${word} ${rest}`);
  }

  #task() {
    this.#last = this.#own.getTask(this.#id) ?? this.#last;
    return this.#last;
  }

  // The stream has all but the timeline, which a new state makes longer.
  async #ask({ status, run }) {
    const asked = `${status} ${run}`;
    if (asked === this.#asked) return;
    this.#asked = asked;
    const record = await this.#own.fetchTask(this.#id).catch(() => null);
    if (record && asked === this.#asked) this.#timeline = record.timeline ?? [];
    this.#changed();
  }

  #take(task) {
    if (task?.parent_id !== this.#id || task.task_id === this.#id) return;
    this.#children.set(task.task_id, task);
    this.#changed();
  }

  async #findChildren() {
    for (const task of this.#queue.tasks.values()) this.#take(task);
    try {
      const { tasks } = await this.#queue.ask("history", { limit: RELATIVES_ASKED }, { filtered: false });
      for (const task of tasks) if (!this.#children.has(task.task_id)) this.#take(task);
    } catch {
      // What is here is shown all the same.
    }
  }

  #draw(task) {
    const { task_name: name, exception, traceback, status } = task;
    // What moves all the time is not here, and what is selected stays selected.
    const state = JSON.stringify([task, this.#timeline, [...this.#children.values()].map((child) => child.status)], (key, value) => (MOVING.has(key) ? undefined : value));
    if (state === this.#shown) return;
    this.#shown = state;
    if (status === "unknown") return this.#body.replaceChildren(h("p", { class: "quiet", text: UNKNOWN }));
    const [module, last] = splitName(name);
    this.#title.replaceChildren(h("span", { class: "module", text: module }), last);
    const parts = errorAndParameters(task);
    const errors = exception ? parts.splice(0, traceback ? 2 : 1) : [];
    this.#body.replaceChildren(...errors, section("Timeline", this.#steps()), ...this.#relatives(task), ...parts, section("Facts", this.#facts(task)));
  }

  #facts({ queue, worker, attempt, max_retries: retries, priority, received_at: received, eta, runtime, run }) {
    return facts([
      ["Queue", queue],
      ["Worker", worker],
      ["Attempt", attemptText(attempt, retries)],
      ["Priority", priority],
      ["Received", received && moment(received)],
      ["Not before", eta && moment(eta)],
      ["Ran for", Number.isFinite(runtime) && duration(runtime)],
      ["Run", run],
    ]);
  }

  #steps() {
    const steps = this.#timeline;
    if (!steps.length) return h("p", { class: "quiet", text: "No step was recorded." });
    let attempt = 1;
    const several = steps.some(({ status }) => status === "retrying");
    const rows = steps.map((step, at) => {
      const row = this.#step(step, steps[at - 1], several && (at === 0 || steps[at - 1].status === "retrying") ? attempt : null);
      if (step.status === "retrying") attempt++;
      return row;
    });
    return h("ol", { class: "timeline" }, ...rows);
  }

  #step({ status, at, worker }, before, attempt) {
    const mark = new StateMark();
    mark.set(status);
    const since = before ? at - before.at : null;
    const gap = since === null ? "" : `+${since < 60 ? duration(Math.max(0, since)) : clock(since)}`;
    return h(
      "li",
      { "data-status": status },
      attempt !== null && h("span", { class: "attempt-head", text: `Attempt ${attempt}` }),
      mark.icon,
      mark.word,
      h("span", { class: "gap", text: gap }),
      h("time", { text: moment(at) }),
      h("span", { class: "worker", text: worker ?? "" }),
    );
  }

  #relatives({ parent_id: parent, root_id: root, group_id: group }) {
    const children = [...this.#children.values()];
    const rows = [
      parent && this.#relative("Parent", parent),
      root && root !== parent && root !== this.#id && this.#relative("Root", root),
      ...children.map((child) => this.#relative("Child", child.task_id, child)),
    ].filter(Boolean);
    if (!rows.length && !group) return [];
    const list = h("ul", { class: "relatives", role: "list" }, ...rows);
    return [section("Family", list, group && h("p", { class: "quiet", text: `Part of the group ${group}` }))];
  }

  #relative(what, id, known = this.#queue.tasks.get(id)) {
    const name = known ? splitName(known.task_name).join("") : id;
    const link = h("button", { class: "text-button", type: "button", text: name, on: { click: () => this.#goTo(id) } });
    const state = known && h("span", { class: "state-word", "data-status": known.status, text: stateOf(known.status).word });
    return h("li", { "data-status": known?.status }, h("span", { class: "kin", text: what }), link, state);
  }
}

