"""The front end as one file: the modules of ``static/`` joined, without comments and indentation.

No tool but this one is needed for it. In return the modules keep to three rules: an import or export takes
one line, a comment that has several takes whole ones, and no two modules have a name of their own in common
(a browser would refuse the whole file). What `shorten` asks of them comes on top.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sidecar.shorten import shorten, shorten_names, shorten_styles

FOLDER = Path(__file__).parent / "static"
ENTRY = "queue-viewer.js"
STYLES = "style.js"

_IMPORT = re.compile(r'^import .* from "\./(.+)";$', re.MULTILINE)
_EXPORT_FROM = re.compile(r'^(export \{.*\}) from "\./(.+)";$', re.MULTILINE)


def make_bundle(entry: str = ENTRY) -> str:
    """Join a module and all that it imports, each behind those that it needs."""
    modules = list(dict.fromkeys(_in_order(entry)))
    return shorten_names("\n".join(_content(name, keep_exports=name == entry) for name in modules)) + "\n"


def _in_order(name: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    if name in above:
        raise CircularImport(" → ".join([*above, name]))
    source = _read(name)
    needed = _IMPORT.findall(source) + [module for _, module in _EXPORT_FROM.findall(source)]
    for module in needed:
        yield from _in_order(module, (*above, name))
    yield name


def _content(name: str, *, keep_exports: bool) -> str:
    source = _IMPORT.sub("", _EXPORT_FROM.sub(r"\1;", _read(name)))
    if not keep_exports:
        source = re.sub(r"^export (?=\w)", "", source, flags=re.MULTILINE)
    return shorten(shorten_styles(source) if name == STYLES else source)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


class CircularImport(ValueError):
    """Raised when modules import each other in a circle."""
