import { TaskQueue } from "./store.js";

// What a button needs: a whole store costs each page that has one every event of every task.
const FIGURES = "types=queue_status";

const shared = new Map();
const numbers = new WeakMap();

/**
 * The store for these options, one for all that want the same: a browser opens only six connections to a server
 * without HTTP/2. With `figures` one that has them alone will do. Give it back with `release()`.
 */
export function shareQueue({ url, token = null, filter = "", figures = false }) {
  if (token && !numbers.has(token)) numbers.set(token, Math.random());
  const keyOf = (wanted) => JSON.stringify([url, String(wanted), token && numbers.get(token)]);
  const everything = new URLSearchParams(filter);
  const wanted = figures && !shared.has(keyOf(everything)) ? new URLSearchParams(FIGURES) : everything;
  const key = keyOf(wanted);
  // One that has given up is of no use to whoever comes new.
  const known = shared.get(key);
  const entry = known && known.queue.connection !== "closed" ? known : { queue: new TaskQueue({ url, token, filter: wanted }), users: 0 };
  shared.set(key, entry);
  entry.users++;
  const close = () => {
    if (shared.get(key) === entry) shared.delete(key);
    entry.queue.close();
  };
  let released = false;
  const release = () => {
    if (released) return;
    released = true;
    // Whoever is moved in the page is taken out and put in again at once.
    if (--entry.users === 0) setTimeout(() => entry.users || close(), 500);
  };
  return { queue: entry.queue, release };
}
