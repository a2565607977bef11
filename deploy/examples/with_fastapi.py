"""A FastAPI application that starts tasks, and a page that watches them.

The application only sends tasks, as it always has. The page asks the sidecar, which lets anyone read.
"""

import os

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from reports import make_report

SIDECAR = os.environ.get("SIDECAR_URL", "http://127.0.0.1:8000")

app = FastAPI()


@app.post("/reports", status_code=202)
def start() -> dict[str, str]:
    """Start a report."""
    return {"task_id": make_report.delay(5).id}


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the page."""
    return PAGE.replace("{{ sidecar }}", SIDECAR)


PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Reports</title>
<button>Make a report</button>
<ol></ol>
<script type="module">
  const list = document.querySelector("ol");

  document.querySelector("button").onclick = async () => {
    const { task_id } = await (await fetch("/reports", { method: "POST" })).json();
    const source = new EventSource(`{{ sidecar }}/api/v1/queue/tasks/${task_id}/events`);
    source.addEventListener("snapshot", (event) => JSON.parse(event.data).tasks.forEach(show));
    source.addEventListener("task_status", (event) => show(JSON.parse(event.data)));
    // Without this the browser would come back, and be told with a 204 that there is no more.
    source.addEventListener("end", () => source.close());
  };

  function show(task) {
    const { current, total } = task.progress ?? {};
    list.append(Object.assign(document.createElement("li"), {
      textContent: total ? `${task.status}: ${current} of ${total}` : task.status,
    }));
  }
</script>
"""
