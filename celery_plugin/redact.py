"""Takes secrets out of what is shown; standard library only, so that the sidecar can use the same code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from urllib.parse import unquote
from uuid import UUID

from celery_plugin.redact_names import SecretNames
from celery_plugin.redact_reading import MARK, VALUE_KEYS, Reading, unescaped

# As much as Celery's producer leaves of arguments (`argsrepr_maxsize`).
MAX_CHARS = 1024
# A text in a string in a text …: each level doubles the backslashes, so nobody has more.
_LEVELS_MAX = 4
# Structures are walked by recursion; none that a person reads is deeper.
_DEPTH_MAX = 64

_HAS_NO_TEXT = re.compile(r"[\d\s()\[\]{},.+\-]*").fullmatch
_HAS_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}").search
_HAS_CODE = re.compile(r"\\[xuU0-7]").search
_ESCAPED_BLANK = re.compile(r"\\([nrtfv])")
_BLANKS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_BLANKS_AS_ESCAPES = str.maketrans({blank: f"\\{letter}" for letter, blank in _BLANKS.items()})
_AS_ESCAPES = _BLANKS_AS_ESCAPES | str.maketrans({"\\": r"\\"})
_HAS_ESCAPED_SIGN = re.compile(r"""\\['"\\]""").search
_PERHAPS_BLANK = re.compile(r"\\([nrtfv][\w\-]+)")
_ATOMS = (bool, int, float, date, time, timedelta, Decimal, UUID)


class Redactor:
    """Takes the values of secrets out of texts and of decoded JSON; the names given come to the list."""

    def __init__(self, extra_names: Iterable[str] = ()) -> None:
        self.names = SecretNames(extra_names)

    def repr_text(self, text: str, max_chars: int = MAX_CHARS) -> str:
        """Redact a repr, a result, an exception's text; only so many characters are read and given."""
        if len(text) > max_chars:
            # The ellipsis comes first: a URL or a string that is cut has to be read as such.
            text = text[: max_chars - 1] + "…" if max_chars > 0 else ""
        if _HAS_NO_TEXT(text):
            return text
        shown, _ = self._text(text)
        return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"

    def value(self, value: object) -> object:
        """Redact a decoded structure; a new one is made, and what JSON does not know becomes its repr."""
        return self._value(value, 0)

    def _text(self, text: str, level: int = 0) -> tuple[str, bool]:
        """Redact a text; also say whether it could not be read to its end."""
        if not self.names.may_matter(text):
            return text, False
        if level > _LEVELS_MAX:
            return MARK, True
        reading = self._reading(text, level)
        shown = reading.result()
        if _HAS_PERCENT(shown):
            plain = unquote(shown)
            again = self._reading(plain, level).result()
            shown = again if again != plain else shown
        return shown, reading.unreadable or reading.inner_unreadable

    def _reading(self, text: str, level: int) -> Reading:
        return Reading(text, self.names, partial(self._string, level=level + 1))

    def _string(self, body: str, quote: str, level: int) -> tuple[str, bool]:
        """Redact what stands between the quotes of a string."""
        if not self.names.may_matter(body):
            return body, False
        if "\\" in body:
            return self._escaped(body, quote, level)
        shown, unreadable = self._text(body, level)
        # What was put in may have quotes of its own.
        return shown if quote in body else shown.replace(quote, f"\\{quote}"), unreadable

    def _escaped(self, body: str, quote: str, level: int) -> tuple[str, bool]:
        if level > _LEVELS_MAX:
            return MARK, True
        plain = _blanks_read(unescaped(body))
        reading = self._reading(plain, level)
        shown = reading.result()
        unreadable = reading.unreadable or reading.inner_unreadable
        if unreadable or self._is_perhaps_literal(body):
            literal = self._literal(body, quote, level)
            if literal is None and unreadable:
                return MARK, True
            if literal is not None and (unreadable or len(unescaped(literal)) < len(shown)):
                return MARK if _HAS_CODE(body) else literal, False
        if shown == plain:
            return body, False
        return shown.translate(_AS_ESCAPES).replace(quote, f"\\{quote}"), False

    def _literal(self, body: str, quote: str, level: int) -> str | None:
        """Read a string as Celery's producer writes it: it escapes the quote and nothing else."""
        if quote == "'":
            body = body.replace("\\'", "'")
        reading = self._reading(body if self._hides_name(body) else _blanks_read(body), level)
        shown = reading.result().translate(_BLANKS_AS_ESCAPES)
        if reading.unreadable:
            return None
        return shown.replace("'", "\\'") if quote == "'" else shown

    def _is_perhaps_literal(self, body: str) -> bool:
        return _HAS_ESCAPED_SIGN(body) is not None or self._hides_name(body)

    def _hides_name(self, body: str) -> bool:
        # C:\token=x has no tabulator.
        names = (found[1] for found in _PERHAPS_BLANK.finditer(body))
        return any(self.names.is_secret(name) and not self.names.is_secret(name[1:]) for name in names)

    def _value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, _ATOMS):
            return value
        if isinstance(value, str):
            return self._text(value)[0]
        if depth >= _DEPTH_MAX:
            return MARK
        if isinstance(value, dict):
            return self._dict(value, depth + 1)
        if isinstance(value, (list, tuple)):
            return self._list(value, depth + 1)
        return self._repr(value)

    def _dict(self, value: dict[object, object], depth: int) -> dict[object, object]:
        # {"name": "password", "value": "x"}: the name of a secret stands beside its value.
        named = any(isinstance(item, str) and self.names.is_only_a_name(item) for item in value.values())
        shown: dict[object, object] = {}
        for key, item in value.items():
            name = key if isinstance(key, str) else self._repr(key)
            secret = self.names.is_secret(name) or (named and name.casefold() in VALUE_KEYS)
            shown[self._text(name)[0] if isinstance(key, str) else key] = (
                MARK if secret else self._value(item, depth)
            )
        return shown

    def _list(self, value: list[object] | tuple[object, ...], depth: int) -> list[object]:
        shown: list[object] = []
        for item in value:
            shown.append(self._value(item, depth))
            if isinstance(item, str) and self.names.is_only_a_name(item) and len(shown) < len(value):
                return [*shown, MARK]
        return shown

    def _repr(self, value: object) -> str:
        try:
            return self._text(repr(value))[0]
        except Exception:
            # Somebody else's code: what it cannot say is not shown.
            return MARK


def _blanks_read(text: str) -> str:
    return _ESCAPED_BLANK.sub(lambda escape: _BLANKS[escape[1]], text)
