import { ICONS, h, icon, setAttribute, setStyle, setText } from "./dom.js";
import { splitName } from "./format.js";
import { ENDED } from "./states.js";
import { TaskDetails } from "./task-details.js";
import { StateMark, attemptText, taskClock, taskMessage } from "./task-parts.js";

/** A task as one row of the list, which opens to show its details. */
export class TaskRow {
  details = null;
  #id;
  #list;
  #mark = new StateMark();
  #parts;

  /** `list` has the records, the clock, and says which rows are open. */
  constructor(id, list) {
    this.#id = id;
    this.#list = list;
    const part = (name, tag = "span") => h(tag, { class: name });
    this.#parts = Object.fromEntries(["module", "name", "message", "percent", "queue", "worker", "attempt", "clock"].map((name) => [name, part(name)]));
    this.#parts.fill = h("span", { class: "fill" });
    this.#parts.track = h("span", { class: "track", hidden: true }, this.#parts.fill);
    this.element = this.#build(id);
    this.update();
    if (list.isOpen(id)) this.#open();
  }

  #build(id) {
    const { module, name, message, percent, queue, worker, attempt, clock: time, track } = this.#parts;
    this.head = h(
      "button",
      { class: "head", type: "button", "aria-expanded": "false", tabindex: "-1", on: { click: () => this.toggle() } },
      this.#mark.icon,
      h("span", { class: "what" }, h("span", { class: "title" }, module, name), h("span", { class: "says" }, this.#mark.word, percent, message)),
      h("span", { class: "where" }, queue, worker),
      attempt,
      time,
      h("span", { class: "chevron" }, icon(ICONS.open, { size: 14 })),
    );
    return h("li", { class: "task", "data-task-id": id }, this.head, track);
  }

  get task() {
    return this.#list.record(this.#id);
  }

  update() {
    const { task } = this;
    if (!task) return;
    const { status, progress, attempt, max_retries: retries } = task;
    const parts = this.#parts;
    this.#mark.set(status);
    setAttribute(this.element, "data-status", status);
    setAttribute(this.element, "data-left", !this.#list.isCurrent(this.#id) || ENDED.has(status));
    const [module, name] = splitName(task.task_name);
    setText(parts.module, module);
    setText(parts.name, name);
    setText(parts.message, taskMessage(task));
    setAttribute(parts.message, "title", taskMessage(task) || null);
    setText(parts.queue, task.queue ?? "");
    setText(parts.worker, task.worker ?? "");
    setAttribute(parts.worker, "title", task.worker);
    setText(parts.attempt, attempt > 1 || (retries && status !== "completed") ? attemptText(attempt, retries) : "");
    setAttribute(parts.attempt, "title", parts.attempt.textContent ? "attempt" : null);
    const percent = status === "active" || status === "lost" ? progress?.percent : null;
    setAttribute(parts.track, "hidden", !Number.isFinite(percent));
    setText(parts.percent, Number.isFinite(percent) ? `${Math.floor(percent)} %` : "");
    if (Number.isFinite(percent)) setStyle(parts.fill, "transform", `scaleX(${percent / 100})`);
    this.tick();
    this.details?.update(task);
  }

  /** Move the clock on. */
  tick() {
    const { text, title } = taskClock(this.task ?? {}, this.#list.now());
    setText(this.#parts.clock, text);
    setAttribute(this.#parts.clock, "title", title || null);
  }

  toggle() {
    if (this.details) this.#close();
    else this.#open();
    this.#list.setOpen(this.#id, this.details !== null);
  }

  #open() {
    this.details = new TaskDetails(this.task, this.#list);
    this.element.append(this.details.element);
    setAttribute(this.head, "aria-expanded", "true");
    this.#list.watch(this.#id, this.details.element);
  }

  #close() {
    this.#list.unwatch(this.#id, this.details.element);
    this.details.element.remove();
    this.details = null;
    setAttribute(this.head, "aria-expanded", "false");
  }
}
