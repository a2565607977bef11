import { describe } from "./connection.js";
import { h, setAttribute, setStyle, setText } from "./dom.js";
import { QueueElement } from "./element.js";
import { ENDED, UNSEEN } from "./states.js";
import { TaskQueue } from "./store.js";
import { sheets } from "./style.js";
import { StateMark, taskClock, taskMessage } from "./task-parts.js";

/**
 * `<task-progress task-id="…">`: one task's state and progress, for the page that started it. Sends `task-change`
 * with the record (`detail`) at each change.
 */
export class TaskProgress extends QueueElement {
  static observedAttributes = [...QueueElement.observedAttributes, "task-id"];
  #queue = null;
  #task = null;
  #timer = 0;
  #mark = new StateMark();
  #message = h("span", { class: "message" });
  #percent = h("span", { class: "percent" });
  #clock = h("span", { class: "clock" });
  #fill = h("span", { class: "fill" });
  #bar;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = sheets();
    this.#bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, this.#fill);
    const line = h("div", { class: "line" }, this.#mark.icon, this.#mark.word, this.#message, h("span", { class: "spring" }), this.#percent, this.#clock);
    this.shadowRoot.append(h("div", { class: "task-progress" }, line, this.#bar));
  }

  connectedCallback() {
    super.connectedCallback();
    this.#timer = setInterval(() => this.#tick(), 1000);
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    super.disconnectedCallback();
  }

  /** The task's record as it was told last, or null. */
  get task() {
    return this.#task;
  }

  // A stream of its own, which a token for this task alone is enough for, and which ends with it.
  share() {
    const queue = new TaskQueue({ url: this.url, token: this.tokenFunction(), taskId: this.getAttribute("task-id") ?? "" });
    return { queue, release: () => queue.close() };
  }

  follow(queue) {
    this.#queue = queue;
    this.#task = null;
    this.#render();
    return queue.subscribe(() => this.#take(queue.getTask(this.getAttribute("task-id"))));
  }

  #take(task) {
    if (task && task !== this.#task) {
      this.#task = task;
      this.dispatchEvent(new CustomEvent("task-change", { detail: task }));
    }
    this.#render();
  }

  #render() {
    const task = this.#task ?? { status: "unknown" };
    const { status } = task;
    this.#mark.set(status);
    setAttribute(this.#bar.parentElement, "data-status", status);
    setAttribute(this.#bar.parentElement, "data-old", this.#task !== null && !ENDED.has(status) && this.#queue.connection !== "live");
    const { word, rest } = describe(this.#queue);
    setText(this.#message, this.#task === null ? `${word} ${rest}` : taskMessage(task));
    const percent = status === "completed" ? 100 : (task.progress?.percent ?? null);
    setText(this.#percent, Number.isFinite(percent) && status !== "completed" ? `${Math.floor(percent)} %` : "");
    setAttribute(this.#bar, "aria-valuenow", Number.isFinite(percent) ? Math.floor(percent) : null);
    setAttribute(this.#bar, "aria-label", task.task_name ? `Progress of ${task.task_name}` : "Progress of the task");
    setStyle(this.#fill, "transform", `scaleX(${Number.isFinite(percent) ? percent / 100 : 0})`);
    this.#tick();
  }

  #tick() {
    if (this.#task && (this.#queue.connection === "live" || this.#task.status !== "active")) {
      setText(this.#clock, taskClock(this.#task, this.#queue.now()).text);
    }
  }
}
