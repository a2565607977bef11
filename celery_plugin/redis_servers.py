"""URLs that name several servers, of which one is asked where the right one is; and how it is asked.

    sentinel://user:password@one:26379;sentinel://two:26379/0?master_name=mymaster  Celery's form
    redis+cluster://one:7000;redis+cluster://two:7000                               rediss+cluster:// with TLS

Standard library only, as the contract: worker and sidecar both read these URLs, and one has connections that
block, the other those of asyncio. So the search is a generator that yields whom to ask for what, is sent the
answer or the error, and returns the address.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from celery_plugin.redis_urls import BadRedisUrl, check_files, join

SENTINEL_SCHEME: Final = "sentinel"
CLUSTER_SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
SCHEMES: Final = frozenset({SENTINEL_SCHEME, *CLUSTER_SCHEMES})

SENTINEL_PORT: Final = 26379
_NODE_PORT = 6379
# A node that was just told of a move may send to one that has not heard of it yet.
_MOVES_MAX = 5
# What is no option of redis-py for the server that is looked for.
SENTINEL_OPTIONS: Final = frozenset(
    {"master_name", "ssl", "sentinel_username", "sentinel_password", "sentinel_ssl"}
)
_LOGIN = ("username", "password")
_MOVED = re.compile(r"(MOVED )?\d+ (\S*):(\d+)")
_UNREADABLE = "its host or port cannot be read"
_TRUE_OR_FALSE = {"true": True, "false": False}

Address = tuple[str, int]


class NotFound(Exception):
    """Raised when nobody says where the server is; has what each one said instead."""


class Question(NamedTuple):
    """Whom to ask for what; with redis-py's options for a Sentinel, None for a server."""

    address: Address
    command: tuple[str, ...]
    options: Mapping[str, Any] | None = None


class Moved(NamedTuple):
    """A node's answer that another one has the keys; it may leave out its own host."""

    host: str
    port: int


def read_moved(error: Exception) -> Moved | None:
    """Where an error says that the keys are; redis-py 5 has a class for it only in its Cluster client."""
    found = _MOVED.fullmatch(str(error))
    if found is None or not (found[1] or type(error).__name__ == "MovedError"):
        return None
    return Moved(found[2], int(found[3]))


class Refused(NamedTuple):
    """A server's answer that it does not answer that."""

    why: str


class Away(NamedTuple):
    """No answer."""

    why: str


def read_refusal(error: Exception) -> Moved | Refused | None:
    """What a server's error answers to a question of where; None where it has what was asked for."""
    # Whose key is on its way has the slot.
    if type(error).__name__ == "AskError" or str(error).startswith("ASK "):
        return None
    return read_moved(error) or Refused(str(error))


class Found(NamedTuple):
    """Where the server is, and who said so."""

    address: Address
    by: Address


# Sent: what the server answers, or one of the three above.
Search = Generator[Question, Any, Found]


@dataclass(frozen=True)
class Sentinels:
    """Servers that know which one is the master; ``options`` are redis-py's for the connections to them."""

    addresses: tuple[Address, ...]
    master_name: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"{_listed(self.addresses)}, {self.master_name}"

    def search(self, first: Address | None = None) -> Search:
        """Ask one Sentinel after the other, and whom it names, whether that is a master."""
        heard: list[str] = []
        for address in _ordered(first, self.addresses):
            ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master_name)
            named = yield Question(address, ask, self.options)
            if not named or isinstance(named, Refused | Away):
                heard.append(_said(address, named.why if named else f"it knows no {self.master_name}"))
                continue
            master = _text(named[0]), int(named[1])
            # Somebody who was away may name the master of old.
            role = yield Question(master, ("ROLE",))
            if isinstance(role, Away):
                heard.append(_said(master, role.why))
            elif not isinstance(role, Refused) and _text(role[0]) != "master":
                heard.append(_said(address, f"it names {_named(master)}, which is a replica"))
            else:
                # Refused to a user without that right; a login that is wrong shows in the connection itself.
                return Found(master, address)
        raise NotFound(f"no Sentinel names a master that answers: {_listed_once(heard)}")


@dataclass(frozen=True)
class Cluster:
    """Nodes, of which one has all keys of the prefix; ``key`` is one of them."""

    addresses: tuple[Address, ...]
    key: str

    def __str__(self) -> str:
        return _listed(self.addresses)

    def search(self, first: Address | None = None) -> Search:
        """Ask for the key, first where it was last, and go where it is said to be."""
        heard: list[str] = []
        for address in _ordered(first, self.addresses):
            here, answer = address, None
            for _ in range(_MOVES_MAX):
                answer = yield Question(here, ("HMGET", self.key, "epoch"))
                if not isinstance(answer, Moved):
                    break
                here = answer.host if answer.host not in ("", "?") else here[0], answer.port
            if not isinstance(answer, Moved | Refused | Away):
                return Found(here, here)
            heard.append(
                _said(here, "it sends from node to node" if isinstance(answer, Moved) else answer.why)
            )
        raise NotFound(f"no node of the Cluster answers for the keys: {_listed_once(heard)}")


Servers = Sentinels | Cluster


def names_servers(url: str) -> bool:
    """Tell a URL of the kinds that are read here."""
    return url.partition("://")[0].lower() in SCHEMES


def is_cluster(url: str) -> bool:
    """Tell a URL of a Cluster."""
    return url.partition("://")[0].lower() in CLUSTER_SCHEMES


def split(url: str) -> list[SplitResult]:
    """The servers of a URL, each as a URL; raises BadRedisUrl where one is none."""
    scheme = url.partition("://")[0].lower()
    texts = (text if "://" in text else f"{scheme}://{text}" for text in url.split(";") if text)
    try:
        parts = [urlsplit(text) for text in texts]
    except ValueError:
        raise BadRedisUrl(_UNREADABLE) from None
    if {part.scheme for part in parts} != {scheme}:
        raise BadRedisUrl("it has several schemes")
    return parts


def addresses_of(parts: Iterable[SplitResult], port: int) -> tuple[Address, ...]:
    """Where the servers are; raises BadRedisUrl."""
    try:
        return tuple(dict.fromkeys((part.hostname or "localhost", part.port or port) for part in parts))
    except ValueError:
        raise BadRedisUrl(_UNREADABLE) from None


def read_servers(url: str, key: str = "") -> tuple[str, Servers | None]:
    """Return a URL for redis-py, and who knows the server that is to stand in it; raises BadRedisUrl.

    ``key`` is one of those that a Cluster is asked for.
    """
    if not names_servers(url):
        return url, None
    parts = split(url)
    for part in parts:
        check_files(part.query)
    options = {name: value for part in parts for name, value in parse_qsl(part.query)}
    plain = _plain(parts)
    if parts[0].scheme in CLUSTER_SCHEMES:
        if plain.path or options.get("db", "0") != "0":
            raise BadRedisUrl("a Cluster has no database but 0")
        scheme = CLUSTER_SCHEMES[parts[0].scheme]
        return _join(plain, scheme, options), Cluster(addresses_of(parts, _NODE_PORT), key)
    if not options.get("master_name"):
        raise BadRedisUrl("it does not say the master's name, as ?master_name=mymaster")
    own = {name: options.pop(name) for name in SENTINEL_OPTIONS if name in options}
    encrypted = _flag(own, "ssl", default=False)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if tls and not encrypted:
        raise BadRedisUrl(f"{min(tls)} has no use without ssl=true")
    sentinels = Sentinels(
        addresses_of(parts, SENTINEL_PORT),
        own["master_name"],
        _sentinel_options(own, tls, encrypted=encrypted),
    )
    return _join(plain, "rediss" if encrypted else "redis", options), sentinels


def url_of_sentinels(sentinels: Sentinels, url: str, tls: Mapping[str, str]) -> str:
    """Write the URL from which `read_servers` would read the same."""
    parts = urlsplit(url)
    first, *others = map(_named, sentinels.addresses)
    login, at, _ = parts.netloc.rpartition("@")
    options = {f"sentinel_{name}": value for name in _LOGIN if (value := sentinels.options.get(name))}
    encrypted = {"ssl": "true"} if parts.scheme == "rediss" else {}
    if encrypted and not sentinels.options.get("ssl"):
        encrypted["sentinel_ssl"] = "false"
    query = urlencode({"master_name": sentinels.master_name, **options, **encrypted, **tls})
    rest = "".join(f";{SENTINEL_SCHEME}://{other}{parts.path}" for other in others)
    return f"{SENTINEL_SCHEME}://{login}{at}{first}{parts.path}{rest}?{query}"


def _sentinel_options(own: Mapping[str, str], tls: Mapping[str, str], *, encrypted: bool) -> dict[str, Any]:
    login = {name: own[f"sentinel_{name}"] for name in _LOGIN if f"sentinel_{name}" in own}
    if not _flag(own, "sentinel_ssl", default=encrypted):
        return login
    return {**login, **tls, "ssl": True}


def _flag(own: Mapping[str, str], name: str, *, default: bool) -> bool:
    if name not in own:
        return default
    if own[name] not in _TRUE_OR_FALSE:
        raise BadRedisUrl(f"{name} is true or false")
    return _TRUE_OR_FALSE[own[name]]


def _plain(parts: list[SplitResult]) -> SplitResult:
    """The first server's URL, which has login and database for all, as Celery takes them."""
    first, *others = parts
    database = first.path.strip("/")
    for other in others:
        if other.path.strip("/") not in ("", database or "0"):
            raise BadRedisUrl("its servers have several databases, the first one's counts")
        if (other.username or other.password) and _login(other) != _login(first):
            raise BadRedisUrl("its servers have several logins, the first one's counts")
    return first._replace(path=f"/{database}" if database not in ("", "0") else "")


def _login(part: SplitResult) -> tuple[str, str]:
    return unquote(part.username or ""), unquote(part.password or "")


def _join(plain: SplitResult, scheme: str, options: Mapping[str, str]) -> str:
    return join(plain._replace(scheme=scheme, query=urlencode(options)))


def _ordered(first: Address | None, addresses: tuple[Address, ...]) -> Iterable[Address]:
    return dict.fromkeys(addresses if first is None else (first, *addresses))


def _said(address: Address, what: str) -> str:
    return f"{_named(address)}: {what}"


def _listed_once(heard: list[str]) -> str:
    return "; ".join(dict.fromkeys(heard))


def _named(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listed(addresses: tuple[Address, ...]) -> str:
    return ";".join(map(_named, addresses))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
