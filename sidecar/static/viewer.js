import { ConnectionChip, describe } from "./connection.js";
import { ICONS, h, icon, setAttribute, setText } from "./dom.js";
import { QueueElement } from "./element.js";
import { Figures } from "./figures.js";
import { Side } from "./side.js";
import { SignIn } from "./sign-in.js";
import { sheets } from "./style.js";
import { TaskList } from "./task-list.js";
import { TaskPage } from "./task-page.js";

const ROUTE = /^#\/tasks\/(.+)$/;

/**
 * `<queue-viewer>`: a modal that `show()` opens, or with `inline` a part of the page.
 *
 * Attributes: `src`, `filter`, `token-url`, `inline`, `label`, `theme` (`light` or `dark`), and for a page of its
 * own `page`: it then takes `/` and `p` from the whole page and keeps the open task in the address.
 */
export class QueueViewer extends QueueElement {
  #queue = null;
  #figures = new Figures();
  #side = new Side();
  #chip = new ConnectionChip();
  #signIn = new SignIn({ url: () => this.url, done: () => this.reopen() });
  #list;
  #page = null;
  #parts;
  #frame = 0;
  #timer = 0;
  #paused = null;
  #returnTo = null;
  #spoken = "";

  constructor() {
    super();
    this.attachShadow({ mode: "open" });
    this.shadowRoot.adoptedStyleSheets = sheets();
    const sideTab = h("button", { class: "tab side-tab", role: "tab", type: "button", "aria-selected": "false", tabindex: "-1", "data-tab": "side", text: "Queues", on: { click: () => this.#showSide(true) } });
    this.#list = new TaskList({ changed: this.#ask, goTo: (id) => this.#goTo(id), say: (text) => this.#say(text), extraTab: sideTab });
    this.#build(sideTab);
  }

  connectedCallback() {
    const inline = this.hasAttribute("inline");
    this.#place(inline);
    super.connectedCallback();
    this.#timer = setInterval(this.#tick, 1000);
    this.addEventListener("keydown", this.#onKey);
    if (!this.hasAttribute("page")) return;
    document.addEventListener("keydown", this.#onPageKey);
    window.addEventListener("hashchange", this.#onHash);
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.removeEventListener("keydown", this.#onKey);
    document.removeEventListener("keydown", this.#onPageKey);
    window.removeEventListener("hashchange", this.#onHash);
    super.disconnectedCallback();
  }

  /** Open the modal; the focus goes back to where it was when it is closed. */
  show() {
    const { dialog } = this.#parts;
    if (this.hasAttribute("inline") || dialog.open) return;
    this.#returnTo = deepActive();
    dialog.showModal();
    this.#parts.root.focus();
    this.#ask();
  }

  close() {
    if (this.#parts.dialog.open) this.#parts.dialog.close();
  }

  get open() {
    return this.#parts.dialog.open || this.hasAttribute("inline");
  }

  get paused() {
    return this.#paused !== null;
  }

  follow(queue) {
    this.#queue = queue;
    this.#list.follow(queue);
    queue.addEventListener("change", this.#onChange);
    queue.addEventListener("connection", this.#onConnection);
    this.#paused = null;
    if (this.hasAttribute("page")) this.#onHash();
    else this.#showPage(null);
    this.#ask();
    return () => {
      queue.removeEventListener("change", this.#onChange);
      queue.removeEventListener("connection", this.#onConnection);
      this.#showPage(null);
    };
  }

  #build(sideTab) {
    const pause = h("button", { class: "tool", type: "button", "aria-pressed": "false", "aria-keyshortcuts": "p", on: { click: () => this.#togglePause() } });
    const close = h("button", { class: "tool close", type: "button", "aria-label": "Close", title: "Close (Esc)", on: { click: () => this.close() } }, icon(ICONS.close));
    const title = h("h1", { class: "label" });
    const live = h("div", { class: "offscreen", role: "status", "aria-live": "polite" });
    const mark = h("span", { class: "brand", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    const header = h("header", { class: "top" }, mark, title, this.#chip.element, h("span", { class: "spring" }), pause, close);
    const page = h("div", { class: "page", hidden: true });
    const main = h("div", { class: "main" }, this.#list.element, this.#side.element, page);
    const root = h("div", { class: "viewer", tabindex: "-1" }, header, this.#figures.element, this.#signIn.element, main, live);
    const dialog = h("dialog", { "aria-label": "Queue" });
    dialog.addEventListener("close", () => this.#giveBack());
    // The backdrop is the dialog itself, what it shows lies in its child.
    dialog.addEventListener("pointerdown", (event) => event.target === dialog && this.close());
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#escape();
    });
    this.#parts = { pause, close, title, live, page, main, root, dialog, sideTab };
    this.#list.element.addEventListener("click", (event) => event.target.closest("[data-tab]:not(.side-tab)") && this.#showSide(false));
    this.#renderPause();
  }

  #place(inline) {
    const { root, dialog, close, title } = this.#parts;
    setText(title, this.getAttribute("label") ?? "Queue");
    setAttribute(close, "hidden", inline);
    setAttribute(root, "role", inline ? "region" : null);
    setAttribute(root, "aria-label", inline ? "Queue" : null);
    if (inline) this.shadowRoot.replaceChildren(root);
    else {
      dialog.replaceChildren(root);
      this.shadowRoot.replaceChildren(dialog);
    }
  }

  #giveBack() {
    this.#returnTo?.focus?.();
    this.#returnTo = null;
    this.dispatchEvent(new Event("close"));
  }

  // However much happens, the page is written once a frame.
  #ask = () => {
    this.#frame ||= requestAnimationFrame(this.#render);
  };

  #onChange = ({ detail }) => {
    if (this.paused) {
      this.#paused.count += detail.ids.size;
      this.#paused.all ||= detail.all;
      for (const id of detail.ids) this.#paused.ids.add(id);
    } else this.#apply(detail);
    this.#ask();
  };

  #apply(detail) {
    this.#list.apply(detail);
    this.#page?.apply(detail);
  }

  #onConnection = () => {
    const { state, word, rest } = describe(this.#queue);
    const text = state === "live" || state === "connecting" ? word : `${word} ${rest}`;
    if (this.#spoken && text !== this.#spoken) this.#say(text);
    this.#spoken = text;
    this.#ask();
  };

  #render = () => {
    this.#frame = 0;
    if (!this.#queue || !this.open) return;
    this.#renderConnection();
    if (this.paused) return;
    this.#figures.render(this.#queue.status);
    this.#figures.tick(this.#queue.status, this.#queue.now());
    if (this.#page) this.#page.render();
    else this.#list.render();
    this.#side.render(this.#queue);
  };

  #tick = () => {
    if (!this.#queue || !this.open) return;
    this.#renderConnection();
    // What is not known to go on must not look as if it did.
    if (this.paused || this.#queue.connection !== "live") return;
    this.#figures.tick(this.#queue.status, this.#queue.now());
    this.#list.tick();
    this.#side.render(this.#queue, { force: true });
    this.#ask();
  };

  #renderConnection() {
    this.#chip.render(this.#queue, this.#paused?.count ?? null);
    const { state } = describe(this.#queue);
    setAttribute(this.#parts.root, "data-connection", state);
    const out = this.hasAttribute("page") && this.#queue.reason === "unauthorized" && this.tokenFunction() === null;
    setAttribute(this.#signIn.element, "hidden", !out);
    setAttribute(this.#parts.main, "hidden", out);
    setAttribute(this.#parts.root, "data-old", this.#queue.status !== null && (state !== "live" || this.paused));
  }

  #togglePause() {
    if (this.paused) {
      const { ids, all } = this.#paused;
      this.#paused = null;
      this.#apply({ ids, all });
      this.#say("Resumed");
    } else {
      this.#paused = { count: 0, ids: new Set(), all: false };
      this.#say("Paused");
    }
    this.#renderPause();
    this.#ask();
  }

  #renderPause() {
    const { pause } = this.#parts;
    pause.replaceChildren(icon(this.paused ? ICONS.resume : ICONS.pause), h("span", { text: this.paused ? "Resume" : "Pause" }), h("kbd", { text: "p" }));
    setAttribute(pause, "aria-pressed", this.paused ? "true" : "false");
  }

  #showSide(shown) {
    setAttribute(this.#parts.root, "data-side", shown);
    const { sideTab } = this.#parts;
    setAttribute(sideTab, "aria-selected", shown ? "true" : "false");
    setAttribute(sideTab, "tabindex", shown ? "0" : "-1");
  }

  #goTo(id) {
    if (this.hasAttribute("page")) location.hash = id === null ? "#/" : `#/tasks/${encodeURIComponent(id)}`;
    else this.#showPage(id);
  }

  #onHash = () => {
    const id = ROUTE.exec(location.hash)?.[1];
    this.#showPage(id ? decoded(id) : null);
  };

  #showPage(id) {
    const { page, root } = this.#parts;
    const before = this.#page;
    this.#page = id === null || !this.#queue ? null : new TaskPage(this.#queue, id, { goTo: (next) => this.#goTo(next), changed: this.#ask });
    before?.close();
    page.replaceChildren(...(this.#page ? [this.#page.element] : []));
    setAttribute(page, "hidden", this.#page === null);
    setAttribute(root, "data-page", this.#page !== null);
    this.#page?.focus();
    if (before && !this.#page) this.#parts.root.focus();
    this.#ask();
  }

  #onKey = (event) => this.#handle(event);

  #onPageKey = (event) => {
    if (!event.composedPath().includes(this)) this.#handle(event);
  };

  #handle(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.composedPath()[0];
    const typing = target.matches?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape") return this.#escape(event);
    if (event.key === "Tab" && this.#parts.dialog.open) return this.#keepFocus(event);
    if (typing) return;
    if (event.key === "/") {
      if (this.#page) this.#goTo(null);
      this.#showSide(false);
      this.#list.search();
    } else if (event.key === "p") this.#togglePause();
    else return;
    event.preventDefault();
  }

  // One step back: out of the search, out of the task's page, out of the modal.
  #escape(event) {
    event?.preventDefault();
    if (this.#list.clearSearch()) return;
    if (this.#page) this.#goTo(null);
    else this.close();
  }

  #keepFocus(event) {
    const stops = [...this.shadowRoot.querySelectorAll("button, input, select, [tabindex='0']")].filter((stop) => stop.tabIndex >= 0 && stop.offsetParent);
    const edge = event.shiftKey ? stops[0] : stops.at(-1);
    const active = this.shadowRoot.activeElement;
    if (active !== edge && !(event.shiftKey && active === this.#parts.root)) return;
    (event.shiftKey ? stops.at(-1) : stops[0])?.focus();
    event.preventDefault();
  }

  #say(text) {
    setText(this.#parts.live, text);
  }
}

function deepActive() {
  let active = document.activeElement;
  while (active?.shadowRoot?.activeElement) active = active.shadowRoot.activeElement;
  return active;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
