// Made of /openapi.json by `make types`: change that, not this. More members may come than are here.

export type TaskState =
  "reserved" | "scheduled" | "active" | "pending" | "retrying" | "completed" | "failed" | "revoked" | "rejected" | "lost" | "unknown";

/** status and worker before */
export interface Previous {
  status: TaskState;
  worker: string | null;
}

/** as docs/progress.md says */
export interface Progress {
  message?: string;
  state?: string;
  current?: number;
  total?: number;
  percent?: number;
  /** seconds since the epoch */
  updated_at: number;
}

/** A task has changed: the whole record as far as it is known. What is not known is left out. */
export interface Task {
  type: "task_status";
  task_id: string;
  /** null where nobody has seen the task so far, or its message names none */
  task_name: string | null;
  status: TaskState;
  /** the task's own words while it reports its progress, else a sentence */
  message: string;
  /** how many tasks of its queue are taken before it, where that is known */
  position: number | null;
  previous?: Previous | null;
  worker?: string | null;
  queue?: string | null;
  /** counts from 1 */
  attempt?: number | null;
  max_retries?: number | null;
  priority?: number | null;
  /** left out where it is the task itself */
  root_id?: string;
  parent_id?: string;
  group_id?: string;
  /** seconds since the epoch */
  received_at?: number;
  /** seconds since the epoch */
  eta?: number | null;
  /** seconds since the epoch */
  started_at?: number;
  /** seconds since the epoch */
  finished_at?: number;
  /** seconds since the epoch */
  lost_at?: number | null;
  /** seconds */
  runtime?: number;
  exception?: string;
  /** why it ended so, in one word */
  reason?: string;
  progress?: Progress;
  /** one execution of the task: its worker's id, and a number */
  run?: string;
  /** the event that told of it, as in the id of the stream */
  offset?: number;
  /** seconds since the epoch */
  updated_at?: number;
  /** seconds since the epoch, by the worker's clock */
  timestamp?: number;
  /** only where it is asked for, captured and allowed */
  args?: string | null;
  /** only where it is asked for, captured and allowed */
  kwargs?: string | null;
  /** only where it is asked for, captured and allowed */
  result?: string | null;
  /** only where it is asked for, captured and allowed */
  traceback?: string | null;
}

export interface TimelineStep {
  status: TaskState;
  /** seconds since the epoch */
  at: number;
  worker: string | null;
}

/** A task, and the steps that it made. */
export interface TaskRecord {
  type: "task_status";
  task_id: string;
  /** null where nobody has seen the task so far, or its message names none */
  task_name: string | null;
  status: TaskState;
  /** the task's own words while it reports its progress, else a sentence */
  message: string;
  /** how many tasks of its queue are taken before it, where that is known */
  position: number | null;
  previous?: Previous | null;
  worker?: string | null;
  queue?: string | null;
  /** counts from 1 */
  attempt?: number | null;
  max_retries?: number | null;
  priority?: number | null;
  /** left out where it is the task itself */
  root_id?: string;
  parent_id?: string;
  group_id?: string;
  /** seconds since the epoch */
  received_at?: number;
  /** seconds since the epoch */
  eta?: number | null;
  /** seconds since the epoch */
  started_at?: number;
  /** seconds since the epoch */
  finished_at?: number;
  /** seconds since the epoch */
  lost_at?: number | null;
  /** seconds */
  runtime?: number;
  exception?: string;
  /** why it ended so, in one word */
  reason?: string;
  progress?: Progress;
  /** one execution of the task: its worker's id, and a number */
  run?: string;
  /** the event that told of it, as in the id of the stream */
  offset?: number;
  /** seconds since the epoch */
  updated_at?: number;
  /** seconds since the epoch, by the worker's clock */
  timestamp?: number;
  /** only where it is asked for, captured and allowed */
  args?: string | null;
  /** only where it is asked for, captured and allowed */
  kwargs?: string | null;
  /** only where it is asked for, captured and allowed */
  result?: string | null;
  /** only where it is asked for, captured and allowed */
  traceback?: string | null;
  timeline: TimelineStep[];
}

export interface TaskPage {
  tasks: Task[];
  /** give it as cursor for what follows; null at the end */
  next: string | null;
}

/** A message in the broker. */
export interface WaitingTask {
  /** null where the message is no task that can be read */
  task_id: string | null;
  task_name: string | null;
  /** how many are taken before it */
  position: number;
  priority: number | null;
  attempt: number | null;
  /** seconds since the epoch */
  eta: number | null;
  args?: string | null;
  kwargs?: string | null;
  /** why the message is not shown as a task */
  unreadable?: string;
}

export interface WaitingPage {
  queue: string;
  tasks: WaitingTask[];
  /** give it as cursor for what follows; null at the end */
  next: string | null;
}

/** what the broker is, and how it names the lists of a queue */
export interface Broker {
  transport: string;
  sep?: string;
  priority_steps?: number[];
  global_keyprefix?: string;
}

/** A worker came, changed or went. */
export interface Worker {
  type: "worker_status";
  /** this process; a worker that is restarted has another one */
  worker_id: string;
  /** its name */
  worker: string;
  status: "online" | "stopping" | "offline";
  pid?: number;
  pool?: string;
  /** how many tasks it runs at a time */
  concurrency?: number | null;
  queues?: string[];
  broker?: Broker;
  celery_version?: string;
  plugin_version?: string;
  /** of what its plugin writes */
  protocol?: number;
  lease_seconds?: number;
  /** seconds since the epoch */
  started_at?: number;
  /** events that it had to give up, since Redis was away too long */
  gave_up?: number;
  /** its clock less Redis's, when it was announced last */
  clock_ahead_s?: number | null;
  reason?: string;
  /** seconds since the epoch */
  lost_at?: number | null;
  offset?: number;
  /** seconds since the epoch, by the worker's clock */
  timestamp?: number;
}

/** A worker, and what its lease says. */
export interface WorkerRecord {
  type: "worker_status";
  /** this process; a worker that is restarted has another one */
  worker_id: string;
  /** its name */
  worker: string;
  status: "online" | "stopping" | "offline";
  pid?: number;
  pool?: string;
  /** how many tasks it runs at a time */
  concurrency?: number | null;
  queues?: string[];
  broker?: Broker;
  celery_version?: string;
  plugin_version?: string;
  /** of what its plugin writes */
  protocol?: number;
  lease_seconds?: number;
  /** seconds since the epoch */
  started_at?: number;
  /** events that it had to give up, since Redis was away too long */
  gave_up?: number;
  /** its clock less Redis's, when it was announced last */
  clock_ahead_s?: number | null;
  reason?: string;
  /** seconds since the epoch */
  lost_at?: number | null;
  offset?: number;
  /** seconds since the epoch, by the worker's clock */
  timestamp?: number;
  /** whether its lease runs */
  alive: boolean;
}

export interface WorkerList {
  workers: WorkerRecord[];
}

/** what could not be asked is null, never 0 */
export interface Queue {
  name: string;
  pending: number | null;
  by_priority: Record<string, number> | null;
  /** how many workers take from it */
  consumers: number;
  /** seconds since the epoch */
  measured_at: number | null;
}

/** The figures. What could not be asked, or may not be seen, is null, never 0. */
export interface QueueStatus {
  type: "queue_status";
  /** pending, reserved, scheduled and active ones */
  total_tasks: number | null;
  active_tasks: number;
  /** what waits in the queues of which that is known */
  pending_tasks: number | null;
  reserved_tasks: number;
  scheduled_tasks: number;
  lost_tasks: number;
  failed_last_hour: number | null;
  /** a lower bound, in seconds; null also where nothing waits */
  oldest_waiting_s: number | null;
  workers_online: number | null;
  queues: Queue[];
  /** seconds since the epoch */
  server_time: number;
}

/** How it is; perhaps over several events, of which the first one has what is no task. */
export interface Snapshot {
  type: "snapshot";
  queue_status?: QueueStatus;
  workers?: Worker[];
  tasks: Task[];
  /** whether more tasks wait than are shown */
  truncated?: boolean;
  running_total?: number;
  waiting_total?: number;
}

/** The snapshot is complete. */
export interface Live {
  type: "live";
  /** <epoch>-<offset> */
  position: string;
  /** seconds since the epoch */
  server_time: number;
}

/** The log cannot go on from where the client was: forget all, a snapshot follows. */
export interface Reset {
  type: "reset";
  reason: "epoch" | "trimmed" | "future" | "behind" | "lost";
}

/** Redis cannot be read since then. */
export interface Stale {
  type: "stale";
  /** seconds since the epoch */
  since: number;
}

/** It can be again, and what was missed has been sent. */
export interface Fresh {
  type: "fresh";
  /** seconds since the epoch */
  since: number;
}

/** The task of this stream has ended, and so has the stream. */
export interface End {
  type: "end";
  task_id: string;
  status: "completed" | "failed" | "revoked" | "rejected";
}

/** There are too many streams; come back after the retry: that comes with it. */
export interface Overloaded {
  type: "overloaded";
  reason: "streams" | "streams_per_address";
}

/** This sidecar goes away; come back after the retry: that comes with it. */
export interface Drain {
  type: "drain";
}

/** The token has expired, and the stream ends. */
export interface Unauthorized {
  type: "unauthorized";
  code: string;
}

/** What comes in a stream; the SSE event: has the name of the type. */
export type Message =
  Task | Worker | QueueStatus | Snapshot | Live | Reset | Stale | Fresh | End | Overloaded | Drain | Unauthorized;

export type AnyObject =
  Record<string, unknown>;

export interface Health {
  status: "alive" | "ready";
}

export interface Session {
  /** seconds since the epoch */
  expires_at: number;
}

export interface Ticket {
  ticket: string;
  /** seconds */
  expires_in: number;
}

/** RFC 9457 */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  /** for programs, where the status does not say it all */
  code?: string;
  /** what is wrong */
  parameter?: string;
  /** under which the sidecar's log says more */
  request_id?: string;
}

/** What is answered where all is well. */
export interface Answers {
  "GET /api/v1/queue/status": QueueStatus;
  "GET /api/v1/queue/tasks": TaskPage;
  "GET /api/v1/queue/tasks/{task_id}": TaskRecord;
  "GET /api/v1/queue/pending": WaitingPage;
  "GET /api/v1/queue/history": TaskPage;
  "GET /api/v1/queue/workers": WorkerList;
  "POST /api/v1/session": Session;
  "POST /api/v1/tickets": Ticket;
  "GET /livez": Health;
  "GET /readyz": Health;
  "GET /openapi.json": AnyObject;
}
