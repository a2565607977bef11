import { h, setAttribute, setStyle, setText } from "./dom.js";
import { QueueElement } from "./element.js";
import { ENDED } from "./states.js";
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
  #among = null;
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

  // A stream of its own, which a token for this task alone is enough for, and which ends with it; a sidecar that
  // has none tells of the task in the stream of all.
  share() {
    const taskId = this.getAttribute("task-id") ?? "";
    if (this.#among === taskId) return super.share();
    const queue = new TaskQueue({ url: this.url, token: this.tokenFunction(), taskId });
    return { queue, release: () => queue.close() };
  }

  follow(queue) {
    this.#queue = queue;
    this.#task = null;
    this.#render();
    if (this.#among === this.getAttribute("task-id")) this.#fetch(queue);
    return queue.subscribe(() => this.#look());
  }

  #look() {
    const id = this.getAttribute("task-id");
    if (this.#queue.reason === "not found" && this.#among !== id) {
      this.#among = id;
      this.reopen();
    } else this.#take(this.#queue.getTask(id));
  }

  async #fetch(queue) {
    const record = await queue.fetchTask(this.#among).catch(() => null);
    if (record && this.#queue === queue && this.#task === null) this.#take(record);
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
    const closed = this.#queue.connection === "closed" && this.#task === null;
    this.#mark.set(status);
    setAttribute(this.#bar.parentElement, "data-status", status);
    setAttribute(this.#bar.parentElement, "data-old", this.#task !== null && !ENDED.has(status) && this.#queue.connection !== "live");
    const waits = closed ? this.#queue.reason : "waiting for news";
    setText(this.#message, this.#task === null ? waits : taskMessage(task));
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
