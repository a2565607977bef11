export type TaskState =
  | "pending" | "reserved" | "scheduled" | "active" | "retrying"
  | "completed" | "failed" | "revoked" | "rejected" | "lost" | "unknown";

export interface Progress {
  message?: string;
  state?: string;
  current?: number;
  total?: number;
  percent?: number;
  updated_at: number;
}

/** Times are seconds since the epoch; fields that are not known are left out, and more may come. */
export interface Task {
  type: "task_status";
  task_id: string;
  /** null where nobody has seen the task so far. */
  task_name: string | null;
  status: TaskState;
  message: string;
  /** How many tasks of its queue are taken before it, where that is known. */
  position: number | null;
  previous?: { status: TaskState; worker: string | null } | null;
  worker?: string;
  queue?: string;
  attempt?: number;
  max_retries?: number | null;
  priority?: number;
  root_id?: string;
  parent_id?: string;
  group_id?: string;
  received_at?: number;
  eta?: number;
  started_at?: number;
  finished_at?: number;
  lost_at?: number | null;
  updated_at?: number;
  timestamp?: number;
  runtime?: number;
  exception?: string;
  reason?: string;
  progress?: Progress;
  run?: string;
  offset?: number;
  /** These only where the stream was asked for them, by `include`. */
  args?: string | null;
  kwargs?: string | null;
  result?: string;
  traceback?: string;
}

export interface TaskRecord extends Task {
  timeline: { status: TaskState; at: number; worker: string | null }[];
}

/** What could not be asked is null, never 0. */
export interface Queue {
  name: string;
  pending: number | null;
  by_priority?: Record<string, number>;
  consumers: number | null;
  measured_at: number | null;
}

export interface QueueStatus {
  type: "queue_status";
  total_tasks: number | null;
  active_tasks: number;
  pending_tasks: number | null;
  reserved_tasks: number;
  scheduled_tasks: number;
  lost_tasks: number;
  failed_last_hour: number | null;
  oldest_waiting_s: number | null;
  workers_online: number;
  queues: Queue[];
  server_time: number;
}

export interface Worker {
  type: "worker_status";
  worker_id: string;
  worker: string;
  status: "online" | "stopping" | "offline";
  pool?: string;
  concurrency?: number;
  queues?: string[];
  lost_at?: number | null;
  started_at?: number;
}

export type Connection = "connecting" | "live" | "stale" | "closed";
export type TokenFunction = () => Promise<string> | string;

export interface QueueOptions {
  /** The sidecar's address; empty for the page's own origin. */
  url?: string;
  /** Asked at the start, and again when the sidecar refuses the last token. */
  token?: TokenFunction | null;
  /**
   * Parameters of the stream: filters, e.g. `{queue: "mail"}` or `"task_name=app.mail.*"`, and `include`,
   * `snapshot` and `types`.
   */
  filter?: string | Record<string, string> | [string, string][] | URLSearchParams;
  /** Follow this task alone, until its end. */
  taskId?: string | null;
}

export class QueueError extends Error {
  readonly status: number;
}

export class TaskQueue extends EventTarget {
  constructor(options?: QueueOptions);
  readonly status: QueueStatus | null;
  readonly tasks: ReadonlyMap<string, Task>;
  readonly workers: ReadonlyMap<string, Worker>;
  readonly connection: Connection;
  /** Since when Redis cannot be read, while the connection is `stale`. */
  readonly since: number | null;
  /** Why the connection is `closed`, e.g. `ended` or `unauthorized`; `overloaded` while it waits for room. */
  readonly reason: string | null;
  /** Whether of the tasks that wait in workers only the first are here; then how many there were. */
  readonly truncated: boolean;
  readonly waitingTotal: number | null;
  readonly heardAt: number | null;
  /** Counts the changes. */
  readonly version: number;
  getTask(id: string): Task | undefined;
  /** The sidecar's clock, in seconds since the epoch. */
  now(): number;
  endedAt(id: string): number | undefined;
  fetchTask(id: string, options?: { signal?: AbortSignal }): Promise<TaskRecord>;
  ask(path: string, parameters?: Record<string, unknown>, options?: { filtered?: boolean; signal?: AbortSignal }): Promise<any>;
  /** A store of one task alone, with args, kwargs, result and traceback; close it. */
  ofTask(id: string): TaskQueue;
  /** List every task that waits in a worker, however many there are. */
  listAll(): void;
  subscribe: (listener: () => void) => () => void;
  close(): void;
}

/** One store for all on a page that want the same; give it back with `release()`. */
export function shareQueue(options: {
  url: string;
  token?: TokenFunction | null;
  filter?: QueueOptions["filter"];
  /** Figures are enough. */
  figures?: boolean;
}): { queue: TaskQueue; release: () => void };

declare class QueueElement extends HTMLElement {
  readonly queue: TaskQueue | null;
  token: TokenFunction | null;
  readonly url: string;
}

export class QueueViewer extends QueueElement {
  show(): void;
  close(): void;
  readonly open: boolean;
  readonly paused: boolean;
}

export class QueueButton extends QueueElement {
  show(): void;
}

export class TaskProgress extends QueueElement {
  readonly task: Task | null;
}

declare global {
  interface HTMLElementTagNameMap {
    "queue-viewer": QueueViewer;
    "queue-button": QueueButton;
    "task-progress": TaskProgress;
  }
}
