"""The command ``celery-sidecar token``: mints a token, for an operator or a script."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.settings import BadSettings, load_only

TTL_DEFAULT: Final = "15m"
TTL_MAX_SECONDS: Final = 366 * 86400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TTL: Final = re.compile(r"([1-9][0-9]{0,7})([smhd])", re.ASCII)


def add_token_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Describe the command."""
    token = commands.add_parser(
        "token",
        help="mint a token with the first of SIDECAR_AUTH_SECRETS",
        description="Print a token, signed with the first of SIDECAR_AUTH_SECRETS (HS256), for the audience "
        "of SIDECAR_AUTH_AUDIENCE. What it may read adds up: these tasks, and those with such names, and "
        "those of these queues.",
        allow_abbrev=False,
    )
    token.add_argument("--all", action="store_true", help="it may read everything")
    for flag, metavar, what in (
        ("--task", "ID", "it may read this task; may be repeated"),
        ("--name", "PATTERN", "it may read tasks with such a name, e.g. 'app.mail.*'; may be repeated"),
        ("--queue", "QUEUE", "it may read the tasks of this queue; may be repeated"),
    ):
        token.add_argument(flag, action="append", default=[], metavar=metavar, help=what)
    token.add_argument("--fields", choices=["args"], help="also args, kwargs, result and traceback")
    token.add_argument(
        "--ttl", default=TTL_DEFAULT, metavar="TIME", help=f"how long, e.g. 90s, 15m, 8h, 7d; {TTL_DEFAULT}"
    )


def mint(arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> str:
    """Make the token; raises BadSettings, and ModuleNotFoundError without the server's parts."""
    mistakes = [f"argument {number + 1} belongs to no flag; see --help" for number, _ in enumerate(unknown)]
    settings: dict[str, Any] = {}
    try:
        settings = load_only(("auth_secrets", "auth_audience", "auth_public_key"), environ)
        mistakes += _without_secret(settings)
    except BadSettings as error:
        mistakes += error.mistakes
    seconds = _seconds(arguments.ttl, mistakes)
    mistakes += _scope_mistakes(arguments)
    if mistakes:
        raise BadSettings(mistakes)
    return _token(arguments, settings, seconds)


def _token(arguments: argparse.Namespace, settings: Mapping[str, Any], seconds: int) -> str:
    from sidecar.auth_keys import secret_keys
    from sidecar.scope import ALL, BadScope, make_scope
    from sidecar.tokens import TOKEN_MAX_CHARS, make_token

    try:
        scope = ALL if arguments.all else make_scope(arguments.task, arguments.name, arguments.queue)
    except BadScope as error:
        raise BadSettings([str(error)]) from None
    fields = frozenset({arguments.fields} if arguments.fields else ())
    key = secret_keys(settings["auth_secrets"])[0]
    token = make_token(key, scope, fields, seconds=seconds, audience=settings["auth_audience"])
    if len(token) > TOKEN_MAX_CHARS:
        raise BadSettings([f"it has more than {TOKEN_MAX_CHARS} characters, which no sidecar takes"])
    return token


def _without_secret(settings: Mapping[str, Any]) -> list[str]:
    if settings["auth_public_key"]:
        return ["SIDECAR_AUTH_PUBLIC_KEY is set: tokens are minted by who has the private key"]
    if not settings["auth_secrets"]:
        return ["SIDECAR_AUTH_SECRETS is not set; it must be the same as the sidecar's"]
    return []


def _seconds(text: str, mistakes: list[str]) -> int:
    match = _TTL.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= TTL_MAX_SECONDS:
        mistakes.append("--ttl is a number with s, m, h or d behind it, e.g. 15m, and 366d at most")
    return seconds


def _scope_mistakes(arguments: argparse.Namespace) -> list[str]:
    narrow = bool(arguments.task or arguments.name or arguments.queue)
    if narrow and arguments.all:
        return ["--all is everything; leave out --task, --name and --queue"]
    if not narrow and not arguments.all:
        return ["what may it read? give --task, --name, --queue or --all"]
    return []
