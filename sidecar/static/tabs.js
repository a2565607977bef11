import { ENDED } from "./states.js";

const byEnd = (task) => -(task.finished_at ?? task.lost_at ?? task.timestamp ?? 0);

// What runs stands above what has just ended.
const byStart = (task) => (ENDED.has(task.status) ? 1e11 + byEnd(task) : -(task.started_at ?? task.received_at ?? task.timestamp ?? 0));

// What workers hold stands above what waits for its time, and that above what is still in the broker.
const byTurn = (task) => {
  if (task.status === "pending") return 1e13 + task.order;
  return task.status === "scheduled" ? 1e12 + (task.eta ?? 0) : (task.received_at ?? 0);
};

// `key` must not change while a task is in a state, or it would jump; `asked` tabs begin with the history.
export const TABS = {
  active: { word: "Active", empty: "Nothing is running.", key: byStart },
  waiting: { word: "Waiting", empty: "Nothing waits.", key: byTurn },
  finished: { word: "Finished", empty: "Nothing has finished yet.", key: byEnd, asked: ["completed", "revoked"] },
  failed: { word: "Failed", empty: "Nothing has failed. Good.", key: byEnd, asked: ["failed", "lost", "rejected"] },
};
