"""What of a task's values is shown is decided here, in the worker: what is left out never reaches Redis."""

from __future__ import annotations

from collections.abc import Iterable

from celery_plugin.redact import Redactor

# As much of an exception as is ever shown.
_EXCEPTION_MAX_CHARS = 500


class Capture:
    """Lets those of args, kwargs, result and traceback through that the settings name, cut and redacted."""

    def __init__(self, names: Iterable[str], max_chars: int, redact: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._max_chars = max_chars
        self._redactor = Redactor(redact)

    def text(self, name: str, value: object) -> str | None:
        """Return what is shown of a value, None where it is not to be shown."""
        if name not in self._names or value is None:
            return None
        text = str(value)
        if name == "traceback":
            text = text[-self._max_chars :]  # its end says what happened
        return self._redactor.repr_text(text, self._max_chars)

    def exception(self, value: object) -> str | None:
        """Return what is shown of an exception, which always is."""
        return None if value is None else self._redactor.repr_text(str(value), _EXCEPTION_MAX_CHARS)
