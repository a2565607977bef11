import { Lookout } from "./lookout.js";
import { askFor } from "./questions.js";
import { Rates } from "./rates.js";
import { ENDED, UNSEEN } from "./states.js";
import { Stream } from "./stream.js";
import { matcher, narrowed, onlyFilters } from "./task-filter.js";

// How long a task that has ended stays, for those who want to show that it did.
const KEPT_MS = 30_000;
const SWEEP_MS = 1000;
// A stream with a filter tells of tasks alone, unless it names more.
const TYPES = "task_status,worker_status,queue_status";
const EVERYTHING = "args,kwargs,result,traceback";

/**
 * What the queue is like, kept up to date by the sidecar's stream; shows nothing itself.
 *
 * `tasks` (id → record) and `workers` (id → record) hold objects that are replaced, never changed. Every change is
 * told by one `change` event a piece of the stream (`detail.ids`, the tasks that came, changed or went;
 * `detail.all` after a new snapshot), every change of `connection` by a `connection` event.
 */
export class TaskQueue extends EventTarget {
  status = null;
  tasks = new Map();
  workers = new Map();
  rates = new Rates();
  /** `connecting`, `live`, `stale` (Redis cannot be read, since `since`) or `closed`; perhaps for a `reason`. */
  connection = "connecting";
  since = null;
  reason = null;
  /** Whether more tasks wait than are listed; then `waitingTotal` says how many workers held. */
  truncated = false;
  waitingTotal = null;
  /** When the sidecar was heard last while all was well, in ms of the local clock. */
  heardAt = null;
  /** Counts the changes, a number for hooks that compare. */
  version = 0;
  #url;
  #token;
  #parameters;
  #filter;
  #taskId;
  #lookout = null;
  #admits;
  #stream;
  #clockAhead = null;
  #endedAt = new Map();
  #snapshot = null;
  #changed = new Set();
  #all = false;
  #dirty = false;
  #sweeper = 0;

  /** `url` is the sidecar's, `filter` the stream's parameters, `taskId` follows one task until its end. */
  constructor({ url = "", token = null, filter = {}, taskId = null } = {}) {
    super();
    this.#url = String(url).replace(/\/+$/, "");
    this.#token = token;
    this.#taskId = taskId;
    this.#parameters = new URLSearchParams(filter);
    this.#filter = onlyFilters(this.#parameters);
    this.#admits = matcher(this.#filter);
    if (this.#filter.size && !this.#parameters.has("types")) this.#parameters.set("types", TYPES);
    if (taskId !== null) this.#lookout = new Lookout(() => this.#look());
    const path = taskId === null ? "events" : `tasks/${encodeURIComponent(taskId)}/events`;
    const address = (lastId) => this.#address(path, new URLSearchParams([...this.#parameters, ...(lastId ? [["last_event_id", lastId]] : [])]));
    this.#stream = new Stream({ address, token, told: this.#told });
    this.#stream.open();
  }

  /** Whether the filter lets tasks of a queue pass, as far as it is about queues. */
  admitsQueue(name) {
    const wanted = this.#filter.getAll("queue");
    return !wanted.length || wanted.includes(name);
  }

  getTask(id) {
    return this.tasks.get(id);
  }

  /** The sidecar's clock, in seconds since the epoch; the local one may be wrong. */
  now() {
    return Date.now() / 1000 + (this.#clockAhead ?? 0);
  }

  /** When a task was seen to end, in ms of the local clock; undefined where it has not. */
  endedAt(id) {
    return this.#endedAt.get(id);
  }

  /** Ask a question, e.g. `ask("history", {status: ["failed"]})`, under the same filter; throws `QueueError`. */
  ask(path, parameters = {}, { filtered = true, signal } = {}) {
    const query = narrowed(filtered ? this.#filter : new URLSearchParams(), parameters);
    return query === null ? Promise.resolve({ tasks: [], next: null }) : askFor(this.#address(path, query), this.#token, signal);
  }

  /** The record of one task with its args, kwargs and `timeline`. */
  fetchTask(id, options = {}) {
    return this.ask(`tasks/${encodeURIComponent(id)}`, {}, { ...options, filtered: false });
  }

  /** A store of one task alone, with all that is known of it; close it. */
  ofTask(id) {
    return new TaskQueue({ url: this.#url, token: this.#token, filter: { include: EVERYTHING }, taskId: id });
  }

  /** List every task that waits in a worker, however many there are. */
  listAll() {
    this.#parameters.set("snapshot", "all");
    this.#startOver();
    this.#stream.reconnect();
  }

  /** Listen to every change and every state of the connection; returns what ends that. */
  subscribe = (listener) => {
    this.addEventListener("change", listener);
    this.addEventListener("connection", listener);
    return () => {
      this.removeEventListener("change", listener);
      this.removeEventListener("connection", listener);
    };
  };

  close() {
    clearTimeout(this.#sweeper);
    this.#lookout?.stop();
    this.#stream.close();
  }

  #address(path, query) {
    return `${this.#url}/api/v1/queue/${path}${query.size ? "?" : ""}${query}`;
  }

  #told = {
    connecting: (reason = null) => this.#connect("connecting", { reason }),
    open: () => {
      this.#snapshot = null;
    },
    event: (type, message, numbered) => this.#take(type, message, numbered),
    placed: () => {
      if (!this.#snapshot && this.connection === "connecting") this.#settle();
    },
    heard: () => {
      // What a sidecar says that has no room, or cannot read Redis, makes no figure younger.
      if (this.connection === "live") this.heardAt = Date.now();
      this.#tell();
    },
    closed: (reason) => {
      this.#tell();
      this.#connect("closed", { reason });
    },
  };

  #connect(connection, { since = null, reason = null } = {}) {
    if (connection === this.connection && since === this.since && reason === this.reason) return;
    Object.assign(this, { connection, since, reason });
    this.version++;
    this.dispatchEvent(new CustomEvent("connection", { detail: { connection, since, reason } }));
  }

  #take(type, message, numbered) {
    if (type === "stale") this.#connect("stale", { since: message.since ?? this.now() });
    else if (type === "snapshot") this.#takeSnapshot(message);
    else if (type === "live") this.#goLive(message.server_time);
    else if (type === "reset") this.#startOver();
    else this.#takeChange(type, message, numbered);
  }

  #takeChange(type, message, numbered) {
    const into = this.#snapshot ?? this;
    if (type === "task_status") this.#setTask(into, message, numbered);
    else if (type === "worker_status") into.workers.set(message.worker_id, message);
    else if (type === "queue_status") this.#setStatus(message);
    else if (type !== "fresh") return;
    this.#dirty = true;
    // Who comes back with an id gets what it missed, no snapshot and no `live`.
    if (!this.#snapshot && (this.connection === "connecting" || type === "fresh")) this.#settle();
  }

  // A snapshot in parts is shown when it is complete: half a queue would be a wrong one.
  #takeSnapshot({ tasks = [], workers = [], queue_status: status, truncated = false, waiting_total: waiting = null }) {
    this.#snapshot ??= { tasks: new Map(), workers: new Map(), status: null, truncated, waiting };
    for (const task of tasks) this.#snapshot.tasks.set(task.task_id, task);
    for (const worker of workers) this.#snapshot.workers.set(worker.worker_id, worker);
    if (status) this.#snapshot.status = status;
  }

  // Cut in the middle of the new snapshot the stream must not go on behind the old one.
  #startOver() {
    this.#snapshot = null;
    this.#stream.lastId = "";
  }

  #goLive(time) {
    const { tasks, workers, status, truncated = false, waiting = null } = this.#snapshot ?? { tasks: new Map(), workers: new Map() };
    this.#snapshot = null;
    for (const id of this.#endedAt.keys()) {
      if (tasks.has(id)) this.#endedAt.delete(id);
      else if (this.tasks.has(id)) tasks.set(id, this.tasks.get(id));
    }
    Object.assign(this, { tasks, workers, truncated, waitingTotal: waiting });
    this.#setClock(time, true);
    if (status) this.#setStatus(status);
    this.#all = this.#dirty = true;
    this.#settle();
  }

  #settle() {
    this.#stream.settle();
    this.#connect("live");
  }

  #setTask(into, task, numbered) {
    const known = into.tasks.get(task.task_id);
    if (known?.offset > task.offset && known.run === task.run) return;
    // What the sidecar reads from the leases has no id and may come back; what the log calls lost is given up.
    const over = isOver(task) || (task.status === "lost" && numbered);
    if (into === this) this.#note(task, known, over);
    // A task that was given back waits in the broker again; one that left the filter is somebody else's.
    const gone = (this.#taskId === null && UNSEEN.has(task.status)) || !this.#admits(task);
    if (gone) into.tasks.delete(task.task_id);
    else into.tasks.set(task.task_id, task);
  }

  #note(task, known, over) {
    const id = task.task_id;
    this.#changed.add(id);
    if (!over) this.#endedAt.delete(id);
    else if (!this.#endedAt.has(id)) {
      this.#endedAt.set(id, Date.now());
      this.rates.ended(task.status, this.now());
      this.#sweeper ||= setTimeout(this.#sweep, SWEEP_MS);
    }
  }

  #setStatus(status) {
    this.status = status;
    this.#setClock(status.server_time, false);
    this.rates.waiting(waitingIn(status), this.now());
  }

  // Figures may be old when they come, so the clock that is furthest ahead is the nearest; after a snapshot,
  // which is new, one that is far off means that somebody set the clock here.
  #setClock(time, fresh) {
    const ahead = time - Date.now() / 1000;
    const known = this.#clockAhead;
    if (Number.isFinite(ahead) && (known === null || ahead > known || (fresh && ahead < known - 5))) this.#clockAhead = ahead;
  }

  #sweep = () => {
    const before = Date.now() - KEPT_MS;
    for (const [id, at] of this.#endedAt) {
      if (at > before) break;
      this.#endedAt.delete(id);
      this.tasks.delete(id);
      this.#changed.add(id);
      this.#dirty = true;
    }
    this.#sweeper = this.#endedAt.size ? setTimeout(this.#sweep, SWEEP_MS) : 0;
    this.#tell();
  };

  /** See where the task is in the broker, which no stream tells; false where that is over. */
  async #look() {
    const known = this.getTask(this.#taskId);
    if (!UNSEEN.has(known?.status) || this.connection === "closed") return false;
    const record = this.connection === "live" ? await this.fetchTask(this.#taskId).catch(() => null) : null;
    if (record?.status === "pending" && known === this.getTask(this.#taskId)) {
      this.tasks.set(this.#taskId, record);
      this.#changed.add(this.#taskId);
      this.#dirty = true;
      this.#tell();
    }
    return true;
  }

  #tell() {
    if (!this.#dirty) return;
    if (this.#lookout && UNSEEN.has(this.getTask(this.#taskId)?.status)) this.#lookout.start();
    const detail = { ids: this.#changed, all: this.#all };
    this.#changed = new Set();
    this.#all = this.#dirty = false;
    this.version++;
    this.dispatchEvent(new CustomEvent("change", { detail }));
  }
}

/** How many tasks wait, in the broker and in workers; null where that is not known. */
export function waitingIn(status) {
  if (!status || status.pending_tasks === null) return null;
  return status.pending_tasks + (status.reserved_tasks ?? 0) + (status.scheduled_tasks ?? 0);
}

const isOver = (task) => task !== undefined && ENDED.has(task.status);
