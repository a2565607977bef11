"""Takes out of JavaScript what only its readers need: indentation, spaces around signs, long names.

It knows no grammar, only what is text and what is not. In return the modules keep to some rules: no template
stands within another; a division has spaces around it, which a regular expression does not begin with; no
template has the name of a constant or a class as a word, and no text that of a private member behind a ``#``;
no text and no loop has ``;}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import ascii_letters

_COMMENT = re.compile(r"^\s*(?:/\*\*.*?\*/|//.*?$)\n", re.MULTILINE | re.DOTALL)
_INDENTATION = re.compile(r"^\s+", re.MULTILINE)
# A text, which stays as it is, a comment behind code, or a sign with spaces around it.
_TEXT_OR_SIGN = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)"""
    r"|[ ]*//[^\n]*"
    r"|[ ]*(=>|[=!]==|[-+*/]=|&&=?|\|\|=?|\?\?=?|[<>]=|[?:,;{}()<>=*])[ ]*"
)
_END_OF_LINE = re.compile(r"(?<=[{};,(\[])\n")
_PRIVATE = re.compile(r"#([A-Za-z]\w*)")
_DECLARED = re.compile(r"^ +(?:(?:static|async|get|set) |\*)*#([A-Za-z]\w*)(?=[ ;(])", re.MULTILINE)
# Constants and classes of modules; functions have names that are also those of properties.
_CAPITAL = re.compile(r"(?:^|[;}\n])(?:const|class) ([A-Z]\w+)")
_EXPORTED = re.compile(r"export\{(.*?)\}")
_CSS = ((": ", ":"), (" {", "{"), ("{ ", "{"), ("; ", ";"), (" }", "}"), (", ", ","), (";}", "}"))


def shorten(source: str) -> str:
    """Shorten a module."""
    bare = _INDENTATION.sub("", _COMMENT.sub("", _rename(source))).strip()
    tight = _TEXT_OR_SIGN.sub(lambda found: found[1] or found[2] or "", bare)
    return _END_OF_LINE.sub("", tight).replace(";}", "}")


def shorten_names(bundle: str) -> str:
    """Give what modules have of each other short names, but not what all of them together export."""
    exported = set(",".join(_EXPORTED.findall(bundle)).split(","))
    names = _short_names((name for name in _CAPITAL.findall(bundle) if name not in exported), "$")
    text_or_name = re.compile(r'"(?:\\.|[^"\\\n])*"|(?<![\w#$])(?:(?<!\.)|(?<=\.\.\.))[A-Z]\w+')
    return text_or_name.sub(lambda found: names.get(found[0], found[0]), bundle)


def shorten_styles(source: str) -> str:
    """Shorten a module that has nothing but styles."""
    bare = _INDENTATION.sub("", source)
    for long, short in _CSS:
        bare = bare.replace(long, short)
    return bare


def _rename(source: str) -> str:
    """Give the private members of a module's classes short names."""
    names = _short_names(_DECLARED.findall(source), "#")
    return _PRIVATE.sub(lambda found: names.get(found[1], found[0]), source)


def _short_names(names: Iterable[str], sign: str) -> dict[str, str]:
    """Name → the sign and a letter, in their order."""
    return {name: sign + _letters(number) for number, name in enumerate(dict.fromkeys(names))}


def _letters(number: int) -> str:
    rounds, letter = divmod(number, len(ascii_letters))
    return ascii_letters[letter] + (str(rounds) if rounds else "")
