"""What Celery itself holds at the moment, read from another thread."""

from __future__ import annotations

from typing import Any

from celery.worker import state


def held_requests() -> tuple[set[int], set[int]]:
    """Return the identities of the active and of the reserved requests; valid while you hold the request."""
    return _identities(state.active_requests), _identities(state.reserved_requests)


def _identities(requests: Any) -> set[int]:
    # Iterating a WeakSet breaks when another thread changes it; copying the set below it is one step.
    return {id(request) for reference in list(requests.data) if (request := reference()) is not None}
