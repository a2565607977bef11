"""What is shown of a task: what everybody sees who may see the task, what only on request, and what not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from celery_plugin.contract import encode
from sidecar.state import Unreadable, read_object

# Ids of other tasks, of which nothing is known but that.
RELATIVES: Final = ("root_id", "parent_id")


class Form(NamedTuple):
    """Which members a task has besides the lean ones, and which lean ones it has not."""

    include: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def of(self, event: bytes, extra: bytes) -> bytes:
        """A task in this form."""
        if self.hidden:
            event = without(event, self.hidden)
        return _with_extra(event, extra, self.include) if self.include and extra != b"{}" else event


LEAN: Final = Form()


def without(record: bytes, names: Collection[str]) -> bytes:
    """Take members out of a JSON object; raises Unreadable."""
    values = read_object(record)
    if values.keys().isdisjoint(names):
        return record
    return encode({name: value for name, value in values.items() if name not in names}).encode()


def _with_extra(event: bytes, extra: bytes, include: tuple[str, ...]) -> bytes:
    try:
        wanted = {name: value for name, value in read_object(extra).items() if name in include}
    except Unreadable:
        return event
    return event[:-1] + b"," + encode(wanted)[1:].encode() if wanted else event
