const NUMBER = new Intl.NumberFormat("en-US");
const two = (value) => String(value).padStart(2, "0");

/** A count; what is not known is no 0. */
export const count = (value) => (Number.isFinite(value) ? NUMBER.format(value) : "–");

/** Seconds as a clock: 0:07, 12:03, 1:02:33, 2 d 3 h. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0/, "");
}

/** A time that was measured: 340 ms, 1.25 s, 3:05. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(seconds < 10 ? 2 : 1)} s` : clock(seconds);
}

/** How long something is, in words that change seldom: 12 s, 5 min, 3 h, 2 d. */
export function roughly(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  return whole < 172800 ? `${Math.floor(whole / 3600)} h` : `${Math.floor(whole / 86400)} d`;
}

/** The time of day at which a second since the epoch was. */
export function timeOfDay(seconds, { millis = false } = {}) {
  const at = new Date(seconds * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return millis ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
}

/** The day and the time of day, the day only where it is not today. */
export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  return day + timeOfDay(seconds, { millis: true });
}

/** What leads to the name of a task, and the name. */
export function splitName(name) {
  const at = String(name ?? "").lastIndexOf(".") + 1;
  return [name?.slice(0, at) ?? "", name?.slice(at) || "unnamed task"];
}

/** Enough of an id to tell it from its neighbours. */
export const shortId = (id) => (id.length > 13 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
