"""The counters that the plugin writes and the sidecar shows, with the names that existing dashboards use.

A counter's field in Redis is a JSON array, its name and its labels:
``["celery_task_started_total","app.add","host","celery"]``. A histogram has a field for each bucket, not
cumulated, with its upper bound as the last label, and one for the sum.
"""

from __future__ import annotations

from typing import Final

# Of the default buckets of Prometheus's client.
RUNTIME_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip  # one scale, one line
WAIT_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
RUNTIME: Final = "celery_task_runtime"
# Not celery_task_queue_wait_time: when a message was sent, Celery does not say.
RECEIVED_TO_STARTED: Final = "celery_task_received_to_started"

RECEIVED: Final = "celery_task_received_total"
FAILED: Final = "celery_task_failed_total"
LOST: Final = "celery_task_lost_total"
TOTALS: Final = {
    "reserved": RECEIVED,
    "scheduled": RECEIVED,
    "active": "celery_task_started_total",
    "completed": "celery_task_succeeded_total",
    "failed": FAILED,
    "retrying": "celery_task_retried_total",
    "revoked": "celery_task_revoked_total",
    "rejected": "celery_task_rejected_total",
    # By the worker itself, when it ends and does not wait; else by the one that finds it dead.
    "lost": LOST,
}
# What each counter and histogram is about; failures also have the exception, before the queue.
LABELS: Final = ("name", "hostname", "queue_name")
FAILED_LABELS: Final = ("name", "hostname", "exception", "queue_name")
# In the place of every label, where there are too many.
OTHER: Final = "other"


def host_of(worker: str) -> str:
    """What follows the ``@`` in the name of a worker: two on a host are counted together."""
    return worker.rpartition("@")[2]
