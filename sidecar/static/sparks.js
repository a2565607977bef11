import { h, setAttribute, setText, svg } from "./dom.js";
import { count } from "./format.js";

const WIDTH = 240;
const HEIGHT = 36;

/** How many wait, and how many end, over the last minutes. */
export class Sparks {
  #line = svg("path", { class: "spark-line" });
  #area = svg("path", { class: "spark-area" });
  #bars = svg("g", {});
  #waiting = h("span", { class: "spark-figure" });
  #rate = h("span", { class: "spark-figure" });
  #drawn = "";

  constructor() {
    this.#depth = drawing("Waiting over the last five minutes", this.#area, this.#line);
    this.#ends = drawing("Tasks that ended over the last five minutes", this.#bars);
    this.element = h(
      "div",
      { class: "sparks" },
      h("figure", {}, h("figcaption", {}, "Waiting", this.#waiting), this.#depth),
      h("figure", {}, h("figcaption", {}, "Ended", this.#rate), this.#ends),
    );
  }

  #depth;
  #ends;

  render(rates, now) {
    const steps = rates.upTo(now);
    const state = JSON.stringify(steps.slice(-3)) + steps.findIndex(Boolean);
    if (state === this.#drawn) return;
    this.#drawn = state;
    this.#drawDepth(steps);
    this.#drawEnds(steps);
    const rate = rates.perSecond(now);
    setText(this.#rate, rate ? `${perSecond(rate.completed + rate.failed)} / s` : "");
  }

  #drawDepth(steps) {
    const known = steps.map((step, at) => [at, step?.waiting]).filter(([, waiting]) => Number.isFinite(waiting));
    const highest = Math.max(4, ...known.map(([, waiting]) => waiting));
    const points = known.map(([at, waiting]) => `${x(at, steps)},${(HEIGHT - 2 - (waiting / highest) * (HEIGHT - 4)).toFixed(1)}`);
    const line = points.length ? `M${points.join("L")}` : "";
    setAttribute(this.#line, "d", points.length === 1 ? `${line}h0.01` : line);
    setAttribute(this.#area, "d", points.length ? `${line}L${x(known.at(-1)[0], steps)},${HEIGHT}L${x(known[0][0], steps)},${HEIGHT}Z` : "");
    const most = known.length ? Math.max(...known.map(([, waiting]) => waiting)) : null;
    setText(this.#waiting, most === null ? "not known" : `peak ${count(most)}`);
    setAttribute(this.#depth, "aria-label", `Waiting over the last five minutes: ${this.#waiting.textContent}`);
  }

  #drawEnds(steps) {
    const highest = Math.max(4, ...steps.map((step) => (step ? step.completed + step.failed : 0)));
    const width = WIDTH / steps.length;
    const bar = (at, from, number, name) => {
      const height = (number / highest) * (HEIGHT - 2);
      return svg("rect", { class: name, x: (at * width).toFixed(1), y: (HEIGHT - (from / highest) * (HEIGHT - 2) - height).toFixed(1), width: (width - 1).toFixed(1), height: height.toFixed(1) });
    };
    const bars = steps.flatMap((step, at) => {
      if (!step) return [];
      const { completed, failed } = step;
      return [completed && bar(at, failed, completed, "ended"), failed && bar(at, 0, failed, "failed")].filter(Boolean);
    });
    this.#bars.replaceChildren(...bars);
    const sum = (name) => steps.reduce((total, step) => total + (step?.[name] ?? 0), 0);
    setAttribute(this.#ends, "aria-label", `In the last five minutes ${sum("completed")} completed and ${sum("failed")} ended otherwise`);
  }
}

const drawing = (label, ...shapes) =>
  svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...shapes);

const x = (at, steps) => ((at + 0.5) * (WIDTH / steps.length)).toFixed(1);

const perSecond = (rate) => (rate >= 10 ? count(Math.round(rate)) : rate.toFixed(1));
