// The same parameters as the stream takes: within one any value will do, all of them must match.

/** Make the test that a task must pass, e.g. of `task_name=app.mail.*&queue=mail`. */
export function matcher(parameters) {
  const wanted = new Map();
  for (const name of ["task_id", "queue", "status", "worker", "task_name"]) {
    const values = parameters.getAll(name);
    if (values.length) wanted.set(name, values);
  }
  if (!wanted.size) return () => true;
  return (task) => [...wanted].every(([name, values]) => values.some((value) => fits(value, task[name] ?? "")));
}

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
