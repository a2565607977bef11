"""A ``queue_status`` as viewers get it: made once for all who may see the same."""

from __future__ import annotations

from celery_plugin.contract import JSON, EventType, encode
from sidecar.event_log import sse


class Figures:
    """The newest one, and which one those in step with the others know."""

    __slots__ = ("__weakref__", "_shown", "frame", "told", "version")

    def __init__(self) -> None:
        self.frame = b""
        self.version = 0
        self.told = 0
        self._shown: JSON = {}

    def take(self, current: JSON, oldest_since: float | None) -> bool:
        """Take the figures of now; tell whether a viewer would see a change."""
        shown = _without_clocks(current, oldest_since)
        if shown == self._shown:
            return False
        self._shown = shown
        self.version += 1
        self.frame = sse(EventType.QUEUE_STATUS, encode(current))
        return True


def _without_clocks(figures: JSON, oldest_since: float | None) -> JSON:
    """What a viewer would see change: everything but how late it is."""
    queues = [
        {name: value for name, value in queue.items() if name != "measured_at"} for queue in figures["queues"]
    ]
    return {**figures, "queues": queues, "oldest_waiting_s": oldest_since, "server_time": None}
