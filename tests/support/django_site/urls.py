"""The view and the template of the documents, as they stand there, and how to come in and to leave."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

DOCS = Path(__file__).parents[3] / "docs"


def example(document: str, language: str) -> str:
    """What a document says under the heading of Django."""
    chapter = re.split(r"^#+ Django$", (DOCS / document).read_text(), flags=re.MULTILINE)[1]
    block = re.search(rf"```{language}\n(.*?)```", chapter, re.DOTALL)
    assert block is not None
    return block[1]


# Django wants to know of each view in which module it is.
found: dict[str, Any] = {"__name__": __name__}
exec(compile(example("security.md", "python"), "security.md", "exec"), found)  # noqa: S102  # our own text
TEMPLATE = engines["django"].from_string(
    "<!doctype html><title>A site</title>" + example("embedding.md", "html")
)


@login_required
def page(request: HttpRequest) -> HttpResponse:
    """Show the progress of a task that was just sent."""
    context: dict[str, Any] = {"SIDECAR_URL": os.environ["SIDECAR_URL"], "result": SimpleNamespace(id="mine")}
    return HttpResponse(TEMPLATE.render(context, request))


def enter(request: HttpRequest) -> HttpResponse:
    """Let in a user who has sent a task."""
    user = User.objects.create(username="ada")
    user.jobs.create(task_id="mine")  # type: ignore[attr-defined] # Django makes it
    login(request, user)
    return redirect("page")


def leave(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return HttpResponse("Goodbye")


def ask(request: HttpRequest) -> HttpResponse:
    """Ask for the password, where Django sends whoever has no session."""
    return HttpResponse("<!doctype html><title>A site</title><form><input type=password></form>")


urlpatterns = [
    path("", page, name="page"),
    path("enter", enter),
    path("leave", leave),
    path("accounts/login/", ask),
    path("queue-token", found["queue_token"], name="queue_token"),
]
