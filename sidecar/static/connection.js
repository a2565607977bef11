import { h, setAttribute, setText } from "./dom.js";
import { timeOfDay } from "./format.js";

const WORDS = {
  unauthorized: "Not signed in",
  forbidden: "No access",
  "not found": "No sidecar here",
  closed: "Closed",
  ended: "Ended",
};

/** What the connection is like: `{state, word, rest}`; never fresh where the figures are not. */
export function describe(queue, now = Date.now()) {
  const { connection, since, reason, status, heardAt } = queue;
  if (connection === "live") return { state: "live", word: "Live", rest: heardAt === null ? "" : `${Math.max(0, (now - heardAt) / 1000).toFixed(1)} s ago` };
  if (connection === "stale") return { state: "stale", word: "Redis unreachable", rest: `since ${timeOfDay(since)}` };
  if (connection === "closed") return { state: "closed", word: WORDS[reason] ?? "Closed", rest: WORDS[reason] ? "" : (reason ?? "") };
  const word = reason === "overloaded" ? "Too many viewers" : status === null ? "Connecting…" : "Reconnecting…";
  return { state: "connecting", word, rest: status === null ? "" : `as of ${timeOfDay((heardAt ?? now) / 1000)}` };
}

/** The chip that says it. */
export class ConnectionChip {
  #word = h("span", { class: "conn-word" });
  #rest = h("span", { class: "conn-rest" });

  constructor() {
    this.element = h("span", { class: "conn" }, h("span", { class: "dot", "aria-hidden": "true" }), this.#word, this.#rest);
  }

  render(queue, paused) {
    const { state, word, rest } = paused === null ? describe(queue) : { state: "paused", word: "Paused", rest: `${paused} ${paused === 1 ? "change" : "changes"}` };
    setAttribute(this.element, "data-state", state);
    setText(this.#word, word);
    setText(this.#rest, rest && (paused === null ? (state === "live" ? `· ${rest}` : rest) : `– ${rest}`));
  }
}
