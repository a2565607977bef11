"""Finds the secret before the ``@`` of a URL, also where the URL is cut or its password is not quoted."""

from __future__ import annotations

import re

# Up to the first sign that ends it; `,` and `;` stand between URLs.
AUTHORITY = r""":?//[^\s/?\#'"<>\\,;]*"""
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.%]*\]|[^:\[\]]*)(?::\d*)?[\])}]*").fullmatch
_REST = re.compile(r"""[^\s'"<>]*""")
_CUT = ("…", "...")


def secret_in_url(text: str, start: int, end: int, scheme: str) -> tuple[int, int] | None:
    """Say where in the text the secret is of a URL whose ``://authority`` stands from start to end."""
    first = start + (3 if text[start] == ":" else 2)
    at = text.rfind("@", first, end)
    colon = text.find(":", first, end if at < 0 else at)
    is_web = scheme.casefold().startswith("http")
    if at >= 0:
        # https://<token>@github.com has no colon; git@ and amqp://guest@ are only names.
        return (colon + 1, at) if colon >= 0 else (first, at) if is_web else None
    if text[start] != ":":
        return None
    if not _HOST(text, first, end):
        return _password_with_signs(text, max(colon + 1, first), end)
    # What is cut before its @ may be no host; of another scheme it would be only a name.
    return (first, end) if is_web and text.endswith(_CUT, first, end) else None


def _password_with_signs(text: str, first: int, end: int) -> tuple[int, int]:
    # It has a / or a # in it, or the URL is cut before its @: as far as the @ or nothing else may end it.
    rest = _REST.match(text, end)
    end_of_rest = rest.end() if rest else end
    at = text.rfind("@", end, end_of_rest)
    return first, end_of_rest if at < 0 else at
