"""The test tasks with what no environment variable of Celery's sets: TASKS_CONF holds it as JSON."""

from __future__ import annotations

import json
import os

from tests.support.tasks_app import make_app

CONF = "TASKS_CONF"

app = make_app(**json.loads(os.environ.get(CONF, "{}")))
