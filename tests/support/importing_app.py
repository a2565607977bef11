"""The test tasks in an application that loads the plugin by its setting `imports`."""

from __future__ import annotations

from tests.support.tasks_app import make_app

app = make_app(imports=("celery_plugin",))
