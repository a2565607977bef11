import { shareQueue } from "./shared-queues.js";

/** What the three elements have in common: where the sidecar is, the token, and the store behind it. */
export class QueueElement extends HTMLElement {
  static observedAttributes = ["src", "filter", "token-url"];
  #token = null;
  #share = null;

  connectedCallback() {
    // A framework may have set it before this class was loaded.
    if (Object.hasOwn(this, "token")) {
      const { token } = this;
      delete this.token;
      this.token = token;
    }
    this.#open();
  }

  disconnectedCallback() {
    this.#close();
  }

  attributeChangedCallback(name, before, after) {
    if (before !== after && this.#share) this.reopen();
  }

  /** The store, while the element is in a page. */
  get queue() {
    return this.#share?.queue ?? null;
  }

  /** `async () => string`: asked at the start, and again when the sidecar refuses the last one. */
  get token() {
    return this.#token;
  }

  set token(token) {
    if (token === this.#token) return;
    this.#token = token;
    if (this.#share) this.reopen();
  }

  /** Where the sidecar is: the attribute `src`, else where this script came from. */
  get url() {
    const given = this.getAttribute("src");
    return given === null ? import.meta.url.replace(/\/static\/.*$/, "") : new URL(given, document.baseURI).href;
  }

  /** Make the store; a subclass may follow something else, or need less. */
  share(less = {}) {
    return shareQueue({ url: this.url, token: this.tokenFunction(), filter: this.getAttribute("filter") ?? "", ...less });
  }

  /** Called with the store when there is a new one; returns what is to be called at its end. */
  follow() {
    return () => {};
  }

  /** The function that was given, or one for `token-url`, or null. */
  tokenFunction() {
    const address = this.getAttribute("token-url");
    return this.#token ?? (address === null ? null : fetcher(new URL(address, document.baseURI).href));
  }

  #open() {
    const { queue, release } = this.share();
    this.#share = { queue };
    const unfollow = this.follow(queue);
    this.#share.end = () => {
      unfollow();
      release();
    };
  }

  #close() {
    this.#share?.end();
    this.#share = null;
  }

  /** Take another store. */
  reopen() {
    this.#close();
    this.#open();
  }
}

const fetchers = new Map();

// One function an address, so that elements with the same address share a store.
function fetcher(address) {
  if (!fetchers.has(address)) fetchers.set(address, () => fetchToken(address));
  return fetchers.get(address);
}

// Whoever has no session is refused, or sent on to a page that asks for a password. Then there is no token, and the
// sidecar says what that means. A site that is down is asked again.
async function fetchToken(address) {
  const response = await fetch(address, { cache: "no-store" });
  if (response.status >= 429) throw new Error(`no token: ${response.status}`);
  const text = (await response.text()).trim();
  const token = text.startsWith("{") ? JSON.parse(text).token : text;
  return response.ok && /^[\w.-]+$/.test(token) ? token : "";
}
