import { h, setText } from "./dom.js";

const WRONG = { 401: "This token is not right, or has ended.", 403: "This token gives no right to look at the queue." };

/** Takes a token where the sidecar's own page wants one, and exchanges it for a cookie that no script can read. */
export class SignIn {
  #said = h("p", { class: "wrong", role: "alert" });
  #token = h("input", { type: "password", "aria-label": "Token", placeholder: "Token", autocomplete: "off", required: true });

  /** `url()` is the sidecar's; `done` is called when there is a cookie. */
  constructor({ url, done }) {
    const form = h("form", {}, this.#token, h("button", { class: "tool", text: "Sign in" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#exchange(url(), done);
    });
    const why = h("p", { class: "quiet", text: "Who may see this queue has a token from its application." });
    this.element = h("section", { class: "sign-in", "aria-label": "Sign in", hidden: true }, why, form, this.#said);
  }

  async #exchange(url, done) {
    const headers = { Authorization: `Bearer ${this.#token.value.trim()}` };
    this.#token.value = "";
    const { ok, status } = await fetch(`${url.replace(/\/+$/, "")}/api/v1/session`, { method: "POST", headers }).catch(() => ({}));
    setText(this.#said, ok ? "" : (WRONG[status] ?? "The sidecar cannot be asked."));
    if (ok) done();
  }
}
