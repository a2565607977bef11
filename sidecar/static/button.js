import { describe } from "./connection.js";
import { h, setAttribute, setText } from "./dom.js";
import { QueueElement } from "./element.js";
import { count, plural } from "./format.js";
import { sheets } from "./style.js";

/** `<queue-button>`: how many tasks there are; a click opens the viewer. */
export class QueueButton extends QueueElement {
  #queue = null;
  #badge = h("span", { class: "badge" });
  #button;
  #viewer = null;
  #frame = 0;
  #timer = 0;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = sheets();
    const label = h("slot", {}, "Queue");
    const mark = h("span", { class: "brand", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    this.#button = h("button", { class: "queue-button", type: "button", "aria-haspopup": "dialog", on: { click: () => this.show() } }, mark, h("span", { class: "button-label" }, label), this.#badge);
    this.shadowRoot.append(this.#button);
  }

  connectedCallback() {
    super.connectedCallback();
    this.#timer = setInterval(this.#ask, 1000);
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    super.disconnectedCallback();
    this.#viewer?.remove();
    this.#viewer = null;
  }

  /** Open the viewer. */
  show() {
    this.#viewer ??= this.#makeViewer();
    this.#viewer.show();
  }

  share() {
    return super.share({ figures: this.#viewer === null });
  }

  follow(queue) {
    this.#queue = queue;
    const unfollow = queue.subscribe(this.#ask);
    this.#ask();
    return unfollow;
  }

  #makeViewer() {
    const viewer = document.createElement("queue-viewer");
    for (const name of ["src", "filter", "token-url", "label", "theme"]) setAttribute(viewer, name, this.getAttribute(name));
    viewer.token = this.token;
    // Its own, not the page's: no style of the page reaches it, and it goes where the button goes.
    this.shadowRoot.append(viewer);
    // What the viewer has is enough for both.
    this.#viewer = viewer;
    this.reopen();
    return viewer;
  }

  #ask = () => {
    this.#frame ||= requestAnimationFrame(this.#render);
  };

  #render = () => {
    this.#frame = 0;
    const { status } = this.#queue;
    const { state, word, rest } = describe(this.#queue);
    // Who may not see all of the queue is told of some tasks alone.
    const total = status?.total_tasks ?? null;
    const some = (status?.active_tasks ?? 0) + (status?.reserved_tasks ?? 0) + (status?.scheduled_tasks ?? 0);
    setText(this.#badge, status === null ? "…" : total === null ? `≥ ${count(some)}` : count(total));
    setAttribute(this.#button, "data-connection", state);
    const figure = status === null ? "number of tasks not known" : total === null ? `at least ${plural(some, "task")}` : plural(total, "task");
    const label = state === "live" ? `Queue: ${figure}` : `Queue: ${figure}, ${word} ${rest}`.trim();
    setAttribute(this.#button, "aria-label", label);
    setAttribute(this.#button, "title", state === "live" ? null : `${word} ${rest}`.trim());
  };
}
