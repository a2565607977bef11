"""Celery's URL of a Redis, turned into one for redis-py: for the worker's Redis and for the sidecar's broker.

Standard library only, as the contract, and for the same reason: both sides import it.

    redis+socket:///run/redis.sock?virtual_host=3      unix:///run/redis.sock?db=3
    rediss://host/0?ssl_cert_reqs=CERT_REQUIRED&x=1    rediss://host/0?ssl_cert_reqs=required
"""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
# Kombu's name for a unix socket.
SOCKET_SCHEME: Final = "redis+socket"

# Time limits and the protocol are the client's own business, so only these may come with a URL.
_OPTIONS = frozenset({"db", "username", "password"})
_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_password",
    }
)
_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


class BadRedisUrl(ValueError):
    """Raised when a URL of a Redis is wrong; says why, and nothing of what stands in it."""


def options_of(scheme: str) -> frozenset[str]:
    """Name the options that may stand in the query of a URL of this scheme."""
    return _OPTIONS | _TLS_OPTIONS if scheme == "rediss" else _OPTIONS


def translate(parts: SplitResult) -> SplitResult:
    """Leave only what redis-py understands: kombu takes more, and passes over what it does not know."""
    if parts.scheme == SOCKET_SCHEME:
        query = re.sub(r"(^|&)virtual_host=(?:/|%2[Ff])?", r"\1db=", parts.query)
        parts = parts._replace(scheme="unix", query=query)
    known = options_of(parts.scheme)
    pairs = [pair for pair in parts.query.split("&") if unquote(pair.partition("=")[0]) in known]
    return parts._replace(query="&".join(pairs))


def join(parts: SplitResult) -> str:
    """Put a URL together again, with the names that redis-py has for how much to ask of a certificate."""
    # Not urlunsplit: it turns unix:///path into unix:/path, which redis-py refuses.
    query = re.sub(
        r"(?<=ssl_cert_reqs=)CERT_\w+", lambda match: certificate_requirement(match[0]), parts.query
    )
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"


def certificate_requirement(word: str) -> str:
    """``CERT_REQUIRED``, as Celery has it, is ``required`` to redis-py."""
    return word.removeprefix("CERT_").lower()


def check_files(query: str) -> None:
    """Raise BadRedisUrl where a file cannot be read; the first connection would not say which one."""
    for name, path in parse_qsl(query):
        if name in _FILES and not os.access(path, os.R_OK):
            raise BadRedisUrl(f"the file of {name} cannot be read")


def name_check(url: str) -> dict[str, bool]:
    """The option that the certificate must be the host's; redis-py before 6 took any of the authority's."""
    parts = urlsplit(url)
    unchecked = dict(parse_qsl(parts.query)).get("ssl_cert_reqs") == "none"
    return {"ssl_check_hostname": True} if parts.scheme == "rediss" and not unchecked else {}
