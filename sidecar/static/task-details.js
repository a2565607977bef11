import { h, setAttribute, setText } from "./dom.js";
import { moment } from "./format.js";
import { idWithCopy } from "./task-parts.js";

const SHOWN_CHARS = 400;

/** A long value, cut, with a way to see the rest. */
export function longText(text, className = "") {
  const value = h("pre", { class: `value ${className}`, tabindex: "0", text: text.slice(0, SHOWN_CHARS) });
  if (text.length <= SHOWN_CHARS) {
    value.removeAttribute("tabindex");
    return value;
  }
  value.append("…");
  const more = h("button", { class: "text-button", type: "button", text: `Show all ${text.length.toLocaleString("en-US")} characters` });
  more.addEventListener("click", () => {
    value.textContent = text;
    more.remove();
  });
  return h("div", { class: "long" }, value, more);
}

/** Pairs of a name and a value, as far as there are any. */
export function facts(pairs) {
  const found = pairs.filter(([, value]) => ![null, undefined, false, ""].includes(value));
  const rows = found.map(([name, value]) => h("div", { class: "fact" }, h("dt", { text: name }), h("dd", {}, value)));
  return h("dl", { class: "facts" }, ...rows);
}

/** What failed first, then what it was called with. */
export function errorAndParameters(task) {
  const { exception, traceback, args, kwargs, result } = task;
  return [
    exception && section("Error", longText(String(exception), "error")),
    traceback && section("Traceback", longText(String(traceback))),
    args !== undefined && section("Arguments", longText(String(args))),
    kwargs !== undefined && kwargs !== "{}" && section("Keyword arguments", longText(String(kwargs))),
    result !== undefined && result !== null && section("Result", longText(String(result))),
  ].filter(Boolean);
}

export const section = (title, ...content) => h("section", {}, h("h4", { text: title }), ...content);

/** The opened part of a row: what it costs to ask for is asked for when it is opened. */
export class TaskDetails {
  #list;
  #id;
  #status;
  #body = h("div", { class: "parameters" }, h("p", { class: "quiet", text: "Loading parameters…" }));
  #more = h("div", { class: "more" });

  constructor(task, list) {
    this.#list = list;
    this.#id = task.task_id;
    this.element = h("div", { class: "details" }, h("div", { class: "details-inner" }, this.#more, this.#body));
    this.update(task);
    this.#load();
  }

  update(task) {
    if (task.status === this.#status) return;
    const ended = this.#status !== undefined && task.exception;
    this.#status = task.status;
    const page = h("button", { class: "text-button page-link", type: "button", text: "Open the task’s page" });
    page.addEventListener("click", () => this.#list.openPage(this.#id));
    this.#more.replaceChildren(
      facts([
        ["Id", idWithCopy(this.#id)],
        ["Queue", task.queue],
        ["Worker", task.worker],
        ["Received", task.received_at && moment(task.received_at)],
        ["Started", task.started_at && moment(task.started_at)],
        ["Ended", task.finished_at && moment(task.finished_at)],
        ["Last heard of", task.status === "lost" && task.lost_at && moment(task.lost_at)],
      ]),
      page,
    );
    if (ended) this.#load();
  }

  async #load() {
    const known = this.#list.fetched.get(this.#id);
    if (known && known.status === this.#status) return this.#show(known);
    try {
      const record = await this.#list.fetchTask(this.#id);
      this.#list.fetched.set(this.#id, record);
      this.#show(record);
    } catch (error) {
      setText(this.#body.firstChild, `The parameters cannot be shown: ${error.message}.`);
    }
  }

  #show(record) {
    const parts = errorAndParameters(record);
    this.#body.replaceChildren(...(parts.length ? parts : [h("p", { class: "quiet", text: "No parameters: none are kept, or you may not see them." })]));
    setAttribute(this.element, "data-loaded", true);
  }
}
