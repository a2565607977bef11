// The one map of states: word, colour in light and in dark, and the strokes of an icon in a 16 × 16 box.
export const STATES = {
  pending: { word: "Pending", light: "#57534e", dark: "#a8a29e", icon: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11" },
  reserved: { word: "Reserved", light: "#0369a1", dark: "#38bdf8", icon: "M2.5 9.5h3l1 2h3l1-2h3M2.5 9.5v4h11v-4M8 2v5.5M5.6 5.3L8 7.7l2.4-2.4" },
  scheduled: { word: "Scheduled", light: "#4f46e5", dark: "#818cf8", icon: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5v3.2l2 1.4" },
  active: { word: "Active", light: "#047857", dark: "#34d399", icon: "M5.5 3.5v9l7-4.5z" },
  retrying: { word: "Retrying", light: "#92400e", dark: "#fbbf24", icon: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3.2H9.8" },
  completed: { word: "Completed", light: "#0e7490", dark: "#22d3ee", icon: "M3 8.5l3.3 3.2L13 4.8" },
  failed: { word: "Failed", light: "#be123c", dark: "#fb7185", icon: "M4 4l8 8M12 4l-8 8" },
  lost: { word: "Lost", light: "#b23a08", dark: "#fb923c", icon: "M5.7 6.1a2.3 2.3 0 1 1 3.4 2C8.4 8.5 8 8.9 8 9.6M8 12.4v.1" },
  revoked: { word: "Revoked", light: "#7c3aed", dark: "#a78bfa", icon: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M4.2 4.2l7.6 7.6" },
  rejected: { word: "Rejected", light: "#475569", dark: "#94a3b8", icon: "M12.5 12.5V9a3 3 0 0 0-3-3H3.5M6.3 3L3.3 6l3 3" },
  unknown: { word: "Unknown", light: "#57534e", dark: "#a8a29e", icon: "M5.7 6.1a2.3 2.3 0 1 1 3.4 2C8.4 8.5 8 8.9 8 9.6M8 12.4v.1" },
};

// What is over; a retry comes back as a new attempt, and what is lost may come back, too.
export const ENDED = new Set(["completed", "failed", "revoked", "rejected", "retrying"]);
// What no worker has seen, or has any more.
export const UNSEEN = new Set(["pending", "unknown"]);
export const WAITING = new Set(["reserved", "scheduled"]);
// In the order of the segments of a bar.
export const SEGMENTS = ["active", "reserved", "scheduled", "pending"];

export const stateOf = (status) => STATES[status] ?? { ...STATES.unknown, word: String(status) };

/** Each state's colour as a custom property, `--state-active` and so on. */
export const colours = (theme) =>
  Object.entries(STATES)
    .map(([name, state]) => `--state-${name}:${state[theme]};`)
    .join("");
