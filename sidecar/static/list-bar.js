import { ICONS, h, icon, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { TABS } from "./tabs.js";

const CHOICES = { task_name: "Any task", queue: "Any queue", worker: "Any worker" };

/** What stands above the list: the tabs, the search, and choices of one name, queue or worker. */
export class ListBar {
  #tabs = {};
  #choices = {};
  #tablist = h("div", { class: "tabs", role: "tablist", "aria-label": "Which tasks" });
  #search = h("input", { type: "search", placeholder: "Search name, id, arguments", "aria-label": "Search name, id or arguments", autocomplete: "off" });

  /** `select(tab)` and `filter({query})` or `{queue}` and so on are called by what the user does. */
  constructor({ select, filter, extraTab }) {
    for (const [name, { word }] of Object.entries(TABS)) this.#tabs[name] = this.#tab(name, word, select);
    for (const [name, all] of Object.entries(CHOICES)) this.#choices[name] = this.#choice(name, all, filter);
    this.#tablist.append(...Object.values(this.#tabs).map(({ button }) => button), extraTab);
    this.#tablist.addEventListener("keydown", (event) => this.#move(event));
    this.#search.addEventListener("input", () => filter({ query: this.#search.value.trim().toLowerCase() }));
    const hint = h("kbd", { text: "/" });
    const label = h("label", { class: "search" }, icon(ICONS.search, { size: 14 }), this.#search, hint);
    const filters = h("div", { class: "filters" }, label, ...Object.values(this.#choices));
    this.element = h("div", { class: "bar-row" }, this.#tablist, filters);
  }

  focus() {
    this.#search.focus();
    this.#search.select();
  }

  /** Leave the search; tells whether there was one. */
  clear() {
    const { value } = this.#search;
    this.#search.value = "";
    return value !== "";
  }

  render(chosen, counts) {
    for (const [name, { button, number }] of Object.entries(this.#tabs)) {
      setAttribute(button, "aria-selected", name === chosen ? "true" : "false");
      setAttribute(button, "tabindex", name === chosen ? "0" : "-1");
      setText(number, Number.isFinite(counts[name]) ? count(counts[name]) : "");
    }
  }

  /** What can be chosen of a name, queue or worker. */
  offer(name, values) {
    const select = this.#choices[name];
    const known = select.options;
    if (values.length === known.length - 1 && name === "task_name") return; // Names only come.
    const offered = [...new Set(values)].filter(Boolean).sort();
    if (offered.length === known.length - 1 && offered.every((value, at) => known[at + 1].value === value)) return;
    if (select.getRootNode().activeElement === select) return; // It may be open.
    const chosen = select.value;
    select.replaceChildren(known[0], ...offered.map((value) => h("option", { value, text: value })));
    select.value = offered.includes(chosen) ? chosen : "";
  }

  #tab(name, word, select) {
    const number = h("span", { class: "tab-count" });
    const button = h("button", { class: "tab", role: "tab", type: "button", "data-tab": name, "aria-controls": "tasks", on: { click: () => select(name) } }, word, number);
    return { button, number };
  }

  #choice(name, all, filter) {
    const select = h("select", { "aria-label": all.replace("Any ", "Only this "), "data-choice": name }, h("option", { value: "", text: all }));
    select.addEventListener("change", () => filter({ [name]: select.value }));
    return select;
  }

  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const buttons = [...this.#tablist.querySelectorAll("[role=tab]")].filter((button) => button.offsetParent);
    const next = buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
    event.preventDefault();
  }
}
