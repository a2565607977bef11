"""The test tasks on a broker that is no Redis: a folder, named by TASKS_FOLDER."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from tests.support.tasks_app import make_app

BROKER = "filesystem://"


def make_folder_app(folder: str, backend: str | None = None) -> Celery:
    """Make an app whose queues are files."""
    options: dict[str, Any] = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    return make_app(BROKER, backend, broker_transport_options=options)


app = make_folder_app(os.environ.get("TASKS_FOLDER", ""))
