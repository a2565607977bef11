// The entry: <queue-button>, <queue-viewer>, <task-progress>, and the store that they show.
import { QueueButton } from "./button.js";
import { TaskProgress } from "./task-progress.js";
import { QueueViewer } from "./viewer.js";

export { QueueError } from "./questions.js";
export { shareQueue } from "./shared-queues.js";
export { TaskQueue } from "./store.js";
export { QueueButton, QueueViewer, TaskProgress };

// Twice on a page, from two addresses, is no error: whoever comes first defines.
const ELEMENTS = { "queue-viewer": QueueViewer, "queue-button": QueueButton, "task-progress": TaskProgress };
for (const [name, element] of Object.entries(ELEMENTS)) {
  if (!customElements.get(name)) customElements.define(name, element);
}
