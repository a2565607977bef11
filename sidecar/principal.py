"""Who asks: what it may see, and until when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

from celery_plugin.contract import EXTRA_FIELDS
from sidecar.denials import ScopeInsufficient
from sidecar.forms import RELATIVES, without
from sidecar.scope import ALL, ARGS, Scope
from sidecar.tasks import Task


@dataclass(frozen=True)
class Principal:
    """What a token gives, or what everybody has without one."""

    scope: Scope
    fields: frozenset[str] = frozenset()
    # Seconds since the epoch at which a stream ends; None where there is no token.
    expires_at: float | None = None
    anonymous: bool = False

    @cached_property
    def sees_args(self) -> bool:
        """Whether args, kwargs, result and traceback may be shown."""
        return ARGS in self.fields

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """What is left out of every record."""
        extra = () if self.sees_args else EXTRA_FIELDS
        return extra if self.scope.everything else (*extra, *RELATIVES)

    def seconds_left(self) -> float | None:
        """How long a stream may go on; None for ever."""
        return None if self.expires_at is None else max(0.0, self.expires_at - time.time())

    def require_everything(self) -> None:
        """Let only pass who may see every task; raises ScopeInsufficient."""
        if not self.scope.everything:
            raise ScopeInsufficient("this needs a token that may read everything")

    def record_of(self, task: Task) -> bytes:
        """The record of a task in memory, as it may be seen."""
        return self.shown(task.record if self.sees_args else task.event)

    def shown(self, record: bytes) -> bytes:
        """A record as it may be seen; raises Unreadable."""
        return without(record, self.hidden) if self.hidden else record


def anonymous_principal(fields: frozenset[str]) -> Principal:
    """Make the principal that needs no token."""
    return Principal(ALL, fields, anonymous=True)
