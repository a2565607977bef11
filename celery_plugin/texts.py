"""Texts as JSON, within so many characters or bytes."""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring

# A string as JSON; not ASCII alone: other alphabets would take twice their bytes.
encode_text: Callable[[str], str] = encode_basestring


def cut(text: str, length: int) -> str:
    """Cut a text to so many characters, the last one an ellipsis where something is missing."""
    if len(text) <= length:
        return text
    return text[: max(0, length - 1)] + "…"


def fit_text(text: str, budget: int, *, keep_end: bool = False) -> str:
    """Encode the text as JSON in at most so many bytes (but never less than an empty string)."""
    encoded = encode_text(text)
    while size(encoded) > budget and text:
        # Escapes and other alphabets take more bytes than characters: come closer step by step.
        kept = min(len(text) - 1, len(text) * max(budget - 8, 0) // size(encoded))
        text = text[len(text) - kept :] if keep_end else text[:kept]
        shortened = f"…{text}" if keep_end else f"{text}…"
        encoded = encode_text(shortened) if text else '""'
    return encoded


def size(text: str) -> int:
    """How many bytes it takes; what UTF-8 cannot hold becomes one."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def to_microseconds(seconds: float) -> str:
    """Write seconds since the epoch with six decimals, by integers: cheaper than a float's digits."""
    if seconds < 1:  # a clock that was never set
        return f"{seconds:.6f}"
    digits = str(round(seconds * 1e6))
    return f"{digits[:-6]}.{digits[-6:]}"
