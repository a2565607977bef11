// The same parameters as the stream takes: within one any value will do, all of them must match.
const NAMES = ["task_id", "queue", "status", "worker", "task_name"];

/** Of a stream's parameters those that every list takes, too. */
export const onlyFilters = (parameters) => new URLSearchParams([...parameters].filter(([name]) => NAMES.includes(name)));

/** Make the test that a task must pass, e.g. of `task_name=app.mail.*&queue=mail`. */
export function matcher(parameters) {
  const wanted = new Map();
  for (const name of NAMES) {
    const values = parameters.getAll(name);
    if (values.length) wanted.set(name, values);
  }
  if (!wanted.size) return () => true;
  return (task) => [...wanted].every(([name, values]) => values.some((value) => fits(value, task[name] ?? "")));
}

// Whether a text is as a pattern wants it, in which `*` is any characters.
function fits(pattern, text) {
  const [first, ...middle] = pattern.split("*");
  if (!middle.length) return text === first;
  const last = middle.pop();
  let at = first.length;
  for (const part of middle) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.startsWith(first) && text.endsWith(last) && at + last.length <= text.length;
}

/** The parameters of a question under a filter; null where nothing can pass both. */
export function narrowed(filter, parameters) {
  const query = new URLSearchParams(filter);
  for (const [name, values] of Object.entries(parameters)) {
    const allowed = query.getAll(name);
    const left = [values].flat().filter((value) => !allowed.length || allowed.some((pattern) => fits(pattern, value)));
    if (!left.length) return null;
    query.delete(name);
    for (const value of left) query.append(name, value);
  }
  return query;
}
