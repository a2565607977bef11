"""A Django site that starts tasks, and a page that watches those that its visitor has started, and no others.

The site only sends tasks, as it always has, and signs for its visitors what they may see. The page exchanges
that for a ticket, since an `EventSource` can send no header, and asks the sidecar.
"""

import os
import sys
import time

import django
import jwt
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Template
from django.urls import path
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST
from reports import make_report

SIDECAR = os.environ.get("SIDECAR_URL", "http://127.0.0.1:8000")
SECRET = os.environ["SIDECAR_AUTH_SECRETS"].split(",")[0].strip()

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY=SECRET,
    # A site with users would keep in its database who has started what.
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()


@require_POST
def start(request: HttpRequest) -> JsonResponse:
    """Start a report, and remember whose it is."""
    task_id = make_report.delay(5).id
    request.session["tasks"] = [task_id, *_tasks(request)][:20]
    return JsonResponse({"task_id": task_id}, status=202)


def queue_token(request: HttpRequest) -> JsonResponse:
    """Sign what this visitor may see."""
    claims = {"exp": time.time() + 900, "sidecar": {"read": {"tasks": _tasks(request)}}}
    return JsonResponse({"token": jwt.encode(claims, SECRET, "HS256")})


def _tasks(request: HttpRequest) -> list[str]:
    return request.session.get("tasks", [])


@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    """Show the page."""
    return HttpResponse(Template(PAGE).render(Context({"sidecar": SIDECAR})))


urlpatterns = [path("", page), path("reports", start), path("queue-token", queue_token)]

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Reports</title>
<button>Make a report</button>
<ol></ol>
<script type="module">
  const list = document.querySelector("ol");
  const csrf = document.cookie.match(/csrftoken=(\\w+)/)[1];

  document.querySelector("button").onclick = async () => {
    const { task_id } = await ask("/reports", { method: "POST", headers: { "X-CSRFToken": csrf } });
    watch(task_id);
  };

  async function watch(id) {
    const { token } = await ask("/queue-token");
    const headers = { Authorization: `Bearer ${token}` };
    const { ticket } = await ask("{{ sidecar }}/api/v1/tickets", { method: "POST", headers });
    const source = new EventSource(`{{ sidecar }}/api/v1/queue/tasks/${id}/events?ticket=${ticket}`);
    source.addEventListener("snapshot", (event) => JSON.parse(event.data).tasks.forEach(show));
    source.addEventListener("task_status", (event) => show(JSON.parse(event.data)));
    source.addEventListener("end", () => source.close());
    source.addEventListener("error", () => {
      // It gives up when it comes back after the ticket's minute: with a new one it begins anew.
      if (source.readyState === EventSource.CLOSED) setTimeout(watch, 2000, id);
    });
  }

  async function ask(url, options) {
    return (await fetch(url, options)).json();
  }

  function show(task) {
    const { current, total } = task.progress ?? {};
    list.append(Object.assign(document.createElement("li"), {
      textContent: total ? `${task.status}: ${current} of ${total}` : task.status,
    }));
  }
</script>
"""

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
