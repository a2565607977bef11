/** Ask the sidecar; with another token when it refuses the first one. Throws `QueueError`. */
export async function askFor(address, token, signal) {
  for (let tried = 0; ; tried++) {
    const shown = await token?.();
    const headers = { Accept: "application/json", ...(shown ? { Authorization: `Bearer ${shown}` } : {}) };
    const response = await fetch(address, { headers, signal, cache: "no-store" });
    if (response.ok) return response.json();
    if (response.status !== 401 || !token || tried) throw new QueueError(response.status);
  }
}

/** Raised where the sidecar answers a question with an error; `status` is the answer's. */
export class QueueError extends Error {
  name = "QueueError";

  constructor(status) {
    super(status === 404 ? "no longer kept" : `the sidecar answered ${status}`);
    this.status = status;
  }
}
