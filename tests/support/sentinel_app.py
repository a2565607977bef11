"""The test tasks on a broker behind Sentinels, set up as a project would: in the app's configuration."""

from __future__ import annotations

from celery import Celery

from tests.support.sentinel_servers import SentinelSet
from tests.support.tasks_app import make_app


def make_sentinel_app(url: str | None = None) -> Celery:
    """Make the app; without a URL it takes CELERY_BROKER_URL and CELERY_RESULT_BACKEND."""
    options = SentinelSet.celery_options
    return make_app(url, url, broker_transport_options=options, result_backend_transport_options=options)


app = make_sentinel_app()
