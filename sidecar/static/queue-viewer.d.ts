// What the sidecar answers and streams has its types in api.d.ts, which is made of the routes' declarations.
import type { QueueStatus, Task, TaskRecord, Worker } from "./api.js";

export type { Progress, Queue, QueueStatus, Task, TaskRecord, TaskState, Worker } from "./api.js";

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
