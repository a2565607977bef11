"""Takes out of JavaScript what only its readers need: indentation, spaces around signs, ends of lines.

It knows no grammar, only what is text and what is not. In return the modules keep to two rules: no template
stands within another, and a division has spaces around it, which a regular expression does not begin with.
"""

from __future__ import annotations

import re

_COMMENT = re.compile(r"^\s*(?:/\*\*.*?\*/|//.*?$)\n", re.MULTILINE | re.DOTALL)
_INDENTATION = re.compile(r"^\s+", re.MULTILINE)
# A text, which stays as it is, a comment behind code, or a sign with spaces around it.
_TEXT_OR_SIGN = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)"""
    r"|[ ]*//[^\n]*"
    r"|[ ]*(=>|[=!]==|[-+*/]=|&&=?|\|\|=?|\?\?=?|[<>]=|[?:,;{}()<>=*])[ ]*"
)
_END_OF_LINE = re.compile(r"(?<=[{;,(\[])\n")
_CSS = ((": ", ":"), (" {", "{"), ("{ ", "{"), ("; ", ";"), (" }", "}"), (", ", ","), (";}", "}"))


def shorten(source: str) -> str:
    """Shorten a module."""
    bare = _INDENTATION.sub("", _COMMENT.sub("", source)).strip()
    return _END_OF_LINE.sub("", _TEXT_OR_SIGN.sub(lambda found: found[1] or found[2] or "", bare))


def shorten_styles(source: str) -> str:
    """Shorten a module that has nothing but styles."""
    bare = _INDENTATION.sub("", source)
    for long, short in _CSS:
        bare = bare.replace(long, short)
    return bare
