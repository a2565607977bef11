"""Takes out of JavaScript what only its readers need: indentation, spaces around signs, private names.

It knows no grammar, only what is text and what is not. In return the modules keep to three rules: no template
stands within another, a division has spaces around it, which a regular expression does not begin with, and no
text has the name of a private member behind a ``#``.
"""

from __future__ import annotations

import re
from itertools import count
from string import ascii_letters

_COMMENT = re.compile(r"^\s*(?:/\*\*.*?\*/|//.*?$)\n", re.MULTILINE | re.DOTALL)
_INDENTATION = re.compile(r"^\s+", re.MULTILINE)
# A text, which stays as it is, a comment behind code, or a sign with spaces around it.
_TEXT_OR_SIGN = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)"""
    r"|[ ]*//[^\n]*"
    r"|[ ]*(=>|[=!]==|[-+*/]=|&&=?|\|\|=?|\?\?=?|[<>]=|[?:,;{}()<>=*])[ ]*"
)
_END_OF_LINE = re.compile(r"(?<=[{;,(\[])\n")
_PRIVATE = re.compile(r"#([A-Za-z]\w*)")
_DECLARED = re.compile(r"^ +(?:(?:static|async|get|set) |\*)*#([A-Za-z]\w*)(?=[ ;(])", re.MULTILINE)
_CSS = ((": ", ":"), (" {", "{"), ("{ ", "{"), ("; ", ";"), (" }", "}"), (", ", ","), (";}", "}"))


def shorten(source: str) -> str:
    """Shorten a module."""
    bare = _INDENTATION.sub("", _COMMENT.sub("", _rename(source))).strip()
    return _END_OF_LINE.sub("", _TEXT_OR_SIGN.sub(lambda found: found[1] or found[2] or "", bare))


def shorten_styles(source: str) -> str:
    """Shorten a module that has nothing but styles."""
    bare = _INDENTATION.sub("", source)
    for long, short in _CSS:
        bare = bare.replace(long, short)
    return bare


def _rename(source: str) -> str:
    """Give the private members of a module's classes short names."""
    names = dict(zip(dict.fromkeys(_DECLARED.findall(source)), map(_short_name, count()), strict=False))
    return _PRIVATE.sub(lambda found: f"#{names.get(found[1], found[1])}", source)


def _short_name(number: int) -> str:
    rounds, letter = divmod(number, len(ascii_letters))
    return ascii_letters[letter] + (str(rounds) if rounds else "")
