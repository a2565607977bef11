"""Which sidecar is asked, and with what token; read from flags and the environment, a flag wins."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from sidecar.settings import BadSettings
from sidecar.urls import masked_url

URL: Final = "SIDECAR_URL"
TOKEN: Final = "SIDECAR_TOKEN"  # noqa: S105  # the name of a variable
TOKEN_FILE: Final = "SIDECAR_TOKEN_FILE"  # noqa: S105  # the same
URL_DEFAULT: Final = "http://127.0.0.1:8000"
# Anything else in it could begin another header.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=\-]+", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._\-]+|[0-9A-Fa-f:.]+", re.ASCII)
_PATH: Final = re.compile(r"[A-Za-z0-9._~/%\-]*", re.ASCII)


class NoToken(Exception):
    """Raised when the file of the token cannot be read, or has none in it; says why."""


@dataclass(frozen=True)
class Target:
    """A sidecar; what lets somebody in is never part of its text."""

    scheme: str
    host: str
    port: int | None
    path: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None

    @property
    def url(self) -> str:
        """Where it is, as it is shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def authorization(self) -> dict[str, str]:
        """The header with the token; a file is read anew, since tokens end; raises NoToken."""
        token = self.token if self.token_file is None else _read_token(self.token_file)
        return {"Authorization": f"Bearer {token}"} if token else {}


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags."""
    parser.add_argument("--url", help=f"where the sidecar is ({URL}; default {URL_DEFAULT})")
    parser.add_argument("--token-file", metavar="FILE", help=f"a file with a token in it ({TOKEN_FILE})")
    parser.add_argument(
        "--token",
        help=f"the token itself; every user of this machine sees a flag, so better {TOKEN} or a file",
    )


def read_target(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Target:
    """Read all of it; raises BadSettings with every mistake, none of which shows a token."""
    mistakes: list[str] = []
    url = arguments.url or environ.get(URL, "").strip() or URL_DEFAULT
    parts = _read_url(url, mistakes)
    token, file = _given_token(arguments, environ)
    if token and not _TOKEN.fullmatch(token):
        mistakes.append("the token has characters in it that no token has")
    if parts is None or mistakes:
        raise BadSettings(mistakes)
    path = parts.path.rstrip("/")
    return Target(parts.scheme, parts.hostname or "", parts.port, path, token, file)


def _given_token(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, Path | None]:
    """A flag of either kind beats the variables, and a file what stands in the open."""
    for token, file in (
        (arguments.token or "", arguments.token_file or ""),
        (environ.get(TOKEN, "").strip(), environ.get(TOKEN_FILE, "").strip()),
    ):
        if token or file:
            return ("", Path(file)) if file else (token, None)
    return "", None


def _read_url(url: str, mistakes: list[str]) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    # A user in it would be sent beside the token, and stand in messages.
    # urlsplit drops tabs and line breaks without a word.
    if (
        url.isprintable()
        and parts.scheme in ("http", "https")
        and _HOST.fullmatch(parts.hostname or "")
        and _PATH.fullmatch(parts.path)
        and port != 0
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment)
    ):
        return parts
    mistakes.append(
        f"the sidecar's URL is {masked_url(url)[:120]!r}: it is http:// or https:// with a host, perhaps "
        f"a port and a path, e.g. {URL_DEFAULT}; without user, query and #"
    )
    return None


def _read_token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise NoToken(f"the file of the token cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not _TOKEN.fullmatch(token):
        raise NoToken("the file of the token has no token in it")
    return token
