import { copyButton, h, icon, setText } from "./dom.js";
import { clock, count, duration, shortId } from "./format.js";
import { ENDED, stateOf } from "./states.js";

/** State as icon and word, in its colour. */
export class StateMark {
  #status = null;
  #path;

  constructor() {
    const drawn = icon("");
    this.#path = drawn.firstChild;
    this.icon = h("span", { class: "state-icon" }, drawn);
    this.word = h("span", { class: "state-word" });
  }

  set(status) {
    if (status === this.#status) return;
    this.#status = status;
    const state = stateOf(status);
    this.#path.setAttribute("d", state.icon);
    setText(this.word, state.word);
  }
}

/** What the clock of a task shows: `{text, title}`; it runs only while the task does. */
export function taskClock(task, now) {
  const { status, started_at: started, received_at: received, finished_at: finished, runtime, lost_at: lost, eta } = task;
  if (status === "active" && started) return { text: clock(now - started), title: "runs since" };
  if (status === "scheduled" && eta) return { text: eta > now ? `in ${clock(eta - now)}` : "due", title: "until its time" };
  if (status === "reserved" && received) return { text: clock(now - received), title: "waits in the worker since" };
  if (status === "lost" && lost) return { text: clock(lost - (started ?? received ?? lost)), title: "ran until its worker was heard last" };
  if (Number.isFinite(runtime)) return { text: duration(runtime), title: "ran" };
  if (finished && started) return { text: duration(finished - started), title: "ran" };
  return { text: "", title: "" };
}

/** What a task says, without repeating its state's word. */
export function taskMessage(task) {
  if (task.status === "failed" || task.status === "rejected") return task.exception ?? task.message ?? "";
  if (ENDED.has(task.status)) return task.exception ?? (task.reason ? task.reason.replaceAll("_", " ") : "");
  if (task.status === "lost") return task.reason === "worker_lost" ? "its worker is gone" : (task.reason ?? "").replaceAll("_", " ");
  if (task.status === "unknown") return "not seen so far";
  if (task.status === "pending") return task.unreadable ?? ahead(task.position);
  const { progress } = task;
  if (progress?.message) return progress.message;
  if (progress?.total) return `${progress.current ?? 0} of ${progress.total}`;
  return task.status === "active" ? "" : (task.message ?? "");
}

const ahead = (position) => (Number.isFinite(position) ? (position ? `${count(position)} ahead of it` : "next in its queue") : "waits in its queue");

/** Of how many: Celery counts retries, people attempts. */
export function attemptText(attempt, retries) {
  return Number.isFinite(retries) && retries !== null ? `${attempt ?? 1} ⁄ ${retries + 1}` : `${attempt ?? 1}`;
}

export const idWithCopy = (id) =>
  h("span", { class: "id" }, h("code", { text: shortId(id), title: id }), copyButton(id, "the task's id"));
