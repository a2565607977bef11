import { ICONS, copyButton, h, icon, setText } from "./dom.js";
import { clock, duration, moment, splitName } from "./format.js";
import { stateOf } from "./states.js";
import { errorAndParameters, facts, section } from "./task-details.js";
import { StateMark, attemptText, taskClock, taskMessage } from "./task-parts.js";

const RELATIVES_ASKED = 500;

/** The page of one task: what failed first, then what it did when, with what, and for whom. */
export class TaskPage {
  #queue;
  #id;
  #goTo;
  #mark = new StateMark();
  #clock = h("span", { class: "page-clock" });
  #message = h("p", { class: "page-message" });
  #body = h("div", { class: "page-body" }, h("p", { class: "quiet", text: "Loading…" }));
  #title = h("h2", { tabindex: "-1" });
  #record = null;
  #shown = "";
  #children = new Map();

  constructor(queue, id, goTo) {
    this.#queue = queue;
    this.#id = id;
    this.#goTo = goTo;
    const back = h("button", { class: "back", type: "button", on: { click: () => goTo(null) } }, icon(ICONS.back, { size: 14 }), "All tasks");
    const state = h("div", { class: "page-state" }, this.#mark.icon, this.#mark.word, this.#clock);
    const name = h("div", { class: "page-name" }, this.#title, h("p", { class: "id" }, h("code", { text: id }), copyButton(id, "the task's id")));
    this.element = h("article", { class: "task-page" }, back, h("header", { class: "page-head" }, name, state), this.#message, this.#body);
    this.#load();
    this.#findChildren();
  }

  focus() {
    this.#title.focus();
  }

  apply({ ids, all }) {
    if (all || ids.has(this.#id)) this.#load();
    for (const id of all ? this.#queue.tasks.keys() : ids) this.#take(this.#queue.tasks.get(id));
  }

  /** Once a second, and after each change. */
  tick() {
    const task = this.#current();
    if (!task) return;
    this.#mark.set(task.status);
    this.element.dataset.status = task.status;
    setText(this.#clock, taskClock(task, this.#queue.now()).text);
    setText(this.#message, task.exception ? "" : taskMessage(task));
  }

  #current() {
    const live = this.#queue.tasks.get(this.#id);
    return live && live.offset >= (this.#record?.offset ?? 0) ? live : this.#record;
  }

  async #load() {
    try {
      this.#record = await this.#queue.fetchTask(this.#id);
    } catch (error) {
      const why = error.status === 404 ? "No worker has this task, and the history does not hold it any more. It may still wait in the broker." : `The task cannot be read: ${error.message}.`;
      if (!this.#record) this.#body.replaceChildren(h("p", { class: "quiet", text: why }));
      if (!this.#record) setText(this.#title, "Task");
      return;
    }
    this.#draw();
  }

  #take(task) {
    if (task?.parent_id !== this.#id || task.task_id === this.#id) return;
    this.#children.set(task.task_id, task);
    this.#draw();
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

  #draw() {
    const record = this.#record;
    if (!record) return;
    const state = JSON.stringify([record, [...this.#children.values()].map(({ status }) => status)]);
    if (state === this.#shown) return;
    this.#shown = state;
    const [module, name] = splitName(record.task_name);
    this.#title.replaceChildren(h("span", { class: "module", text: module }), name);
    const parts = errorAndParameters(record);
    const errors = record.exception ? parts.splice(0, record.traceback ? 2 : 1) : [];
    this.#body.replaceChildren(...errors, section("Timeline", this.#timeline()), ...this.#relatives(), ...parts, section("Facts", this.#facts()));
    this.tick();
  }

  #facts() {
    const { queue, worker, attempt, max_retries: retries, priority, received_at: received, eta, runtime, run } = this.#record;
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

  #timeline() {
    const steps = this.#record.timeline ?? [];
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

  #relatives() {
    const { parent_id: parent, root_id: root, group_id: group } = this.#record;
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

