// A stream of Server-Sent Events that comes back by itself. EventSource is not enough: it cannot send a token,
// does not tell a status code, and stops for good at any answer but 200.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
// The sidecar sends something at least every 15 s; a network that vanished sends nothing, and no end either.
const QUIET_MS = 40_000;
const TOKENS_TRIED = 3;

/**
 * Cuts text into events: `{type, data, id, numbered}`, the id as it is after the event, and whether it brought it.
 * Lines end in LF or CRLF.
 */
export class EventParser {
  #rest = "";
  #type = "";
  #data = [];
  #id;
  #numbered = false;
  retry = null;

  constructor(lastId = "") {
    this.#id = lastId;
  }

  *feed(text) {
    const buffer = this.#rest + text;
    let start = 0;
    // From where the last piece ended: a large snapshot comes in many pieces of one line.
    let end = buffer.indexOf("\n", this.#rest.length);
    while (end >= 0) {
      const event = this.#line(buffer.slice(start, buffer[end - 1] === "\r" ? end - 1 : end));
      if (event) yield event;
      start = end + 1;
      end = buffer.indexOf("\n", start);
    }
    this.#rest = buffer.slice(start);
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) [this.#id, this.#numbered] = [value, true];
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return null;
  }

  // An id alone, without data, counts as well: it moves a filtered viewer on.
  #dispatch() {
    const data = this.#data.length ? this.#data.join("\n") : null;
    const event = { type: this.#type || "message", data, id: this.#id, numbered: this.#numbered };
    this.#type = "";
    this.#numbered = false;
    this.#data = [];
    return event;
  }
}

/**
 * Keeps one stream open until `close()`, its `end`, or an answer that another try would not change.
 *
 * `address(lastId)` gives the URL, `token()` a bearer token. Told are: `connecting`, `open`, `event`,
 * `placed` (the id is that of now), `heard` (after each piece that came in) and `closed(reason)`.
 */
export class Stream {
  lastId = "";
  #address;
  #token;
  #told;
  #abort = null;
  #timer = 0;
  #quiet = 0;
  #failures = 0;
  #refusals = 0;
  #held = false;
  #heardAt = 0;
  #openedAt = 0;
  #closed = false;

  constructor({ address, token = null, told }) {
    this.#address = address;
    this.#token = token;
    this.#told = told;
    globalThis.addEventListener?.("online", this.#hurry);
    globalThis.document?.addEventListener("visibilitychange", this.#hurry);
  }

  open() {
    this.#connect();
  }

  close(reason = "closed") {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#quiet);
    globalThis.removeEventListener?.("online", this.#hurry);
    globalThis.document?.removeEventListener("visibilitychange", this.#hurry);
    this.#abort?.abort();
    this.#told.closed(reason);
  }

  /** It goes well: the next pause is a short one again. */
  settle() {
    this.#failures = 0;
    this.#refusals = 0;
  }

  /** Start over at once, e.g. with a new token. */
  reconnect() {
    this.#abort?.abort();
    if (!this.#closed) this.#connect();
  }

  async #connect() {
    clearTimeout(this.#timer);
    const abort = (this.#abort = new AbortController());
    this.#told.connecting();
    this.#watch();
    let pause = null;
    try {
      const token = await this.#token?.();
      const headers = { Accept: "text/event-stream", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
      if (abort.signal.aborted) return;
      const response = await fetch(this.#address(this.lastId), { headers, signal: abort.signal, cache: "no-store" });
      pause = await this.#take(response, abort);
    } catch (error) {
      if (this.#abort === abort && !this.#closed) globalThis.console?.debug("queue stream:", error);
    }
    if (this.#abort === abort && !this.#closed) this.#wait(pause);
  }

  /** Read an answer to its end; return how long the sidecar asks to wait, if it does. */
  async #take(response, abort) {
    const { status } = response;
    if (status === 200) return this.#read(response, abort);
    response.body?.cancel().catch(() => {});
    if (status === 204) this.close("ended");
    else if (status === 401 && this.#token && ++this.#refusals < TOKENS_TRIED) return this.#refusals === 1 ? 0 : null;
    else if (status >= 400 && status < 500 && status !== 408 && status !== 429) this.close(REASONS[status] ?? `refused (${status})`);
    const seconds = Number(response.headers.get("Retry-After"));
    return seconds > 0 ? seconds * 1000 : null;
  }

  async #read(response, abort) {
    const parser = new EventParser(this.lastId);
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let asked = null;
    this.#openedAt = Date.now();
    this.#told.open();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      this.#watch();
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
        asked = this.#hear(event, parser);
        if (this.#closed || abort.signal.aborted) return null;
        if (asked !== null) break;
      }
      this.#told.heard();
      if (asked !== null) return asked;
    }
    // After a clean end `retry:` says when to come back; after a cut nobody does.
    return parser.retry === null ? null : parser.retry * (1 + Math.random() / 4);
  }

  #hear(event, parser) {
    this.lastId = event.id;
    if (event.data === null) {
      if (event.numbered) this.#told.placed();
      return null;
    }
    const message = parsed(event.data);
    this.#told.event(event.type, message, event.numbered);
    if (event.type === "end") this.close("ended");
    if (event.type === "unauthorized" && !this.#token) this.close("unauthorized");
    // A token that is refused at once is no reason to ask in a circle.
    if (event.type === "unauthorized") return Date.now() - this.#openedAt > FIRST_PAUSE_MS ? 0 : LONGEST_PAUSE_MS / 10;
    if (event.type !== "overloaded") return null;
    this.#held = true; // Neither a new network nor a look at the page makes room.
    return Math.max(parser.retry ?? 0, LONGEST_PAUSE_MS);
  }

  #wait(asked) {
    this.#told.connecting(this.#held ? "overloaded" : null);
    clearTimeout(this.#quiet);
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures++);
    // Half of it by chance, or a thousand viewers would come back at the same moment.
    const pause = asked === null ? longest * (0.5 + Math.random() / 2) : asked;
    this.#timer = setTimeout(() => {
      this.#held = false;
      this.#connect();
    }, pause);
    this.#abort?.abort();
    this.#abort = null;
  }

  #watch() {
    this.#heardAt = Date.now();
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.reconnect(), QUIET_MS);
  }

  #hurry = () => {
    if (globalThis.document?.visibilityState === "hidden" || this.#closed || this.#held) return;
    // A tab in the background has slow timers, and a laptop that slept has none.
    if (this.#abort === null || Date.now() - this.#heardAt > QUIET_MS) this.reconnect();
  };
}

const REASONS = { 401: "unauthorized", 403: "forbidden", 404: "not found" };

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
