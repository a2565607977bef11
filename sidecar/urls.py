"""URLs of Redis and of brokers: checked without connecting, and masked before they are shown.

Checked here is what redis-py would pass over: it reads ``redis://host/abc`` as database 0 and
``redis://:6379`` as localhost, and an option that it does not know fails only at the first connection.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from celery_plugin.redis_servers import (
    CLUSTER_SCHEMES,
    SENTINEL_OPTIONS,
    SENTINEL_SCHEME,
    is_cluster,
    names_servers,
    read_servers,
    split,
)
from celery_plugin.redis_urls import (
    REDIS_SCHEMES,
    SOCKET_SCHEME,
    BadRedisUrl,
    certificate_requirement,
    check_files,
    join,
    options_of,
    translate,
)

_EXAMPLES = (
    "redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/redis.sock?db=0, "
    "sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster "
    "or redis+cluster://one:6379;redis+cluster://two:6379"
)
# As kombu has them.
AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")
_CREDENTIAL = re.compile(r"passw|pwd|secret|token|credential|auth", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(?=://)")
_HOST = re.compile(r"[A-Za-z0-9._\-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?", re.ASCII)
_DB = re.compile(r"[0-9]{1,9}", re.ASCII)


def masked_url(url: str) -> str:
    """Replace the password, and every credential in the query, by ``***``.

    It also takes what is no URL: a mistyped one is reported, and its password may hold ``/`` or ``@``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    userinfo, at, address = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    # A lone word before the @ is a user's name to redis-py, but as often a password by mistake.
    visible = f"{_masked_options(user)}:***@" if colon else "***@" if at else ""
    return f"{scheme}{separator}{visible}{_masked_options(address)}"


def masked_text(text: str) -> str:
    """Mask whatever in a sentence could be a URL with a credential."""
    return re.sub(r"[^\s'\"]*[@?][^\s'\"]*", lambda match: masked_url(match[0]), text)


def check_redis_url(text: str) -> str:
    """Return the URL, or raise ValueError with what is allowed."""
    if names_servers(text):
        return _check_servers(text)
    parts = _split(text)
    if parts.scheme not in REDIS_SCHEMES:
        raise _bad_redis_url("its scheme is another" if parts.scheme else "it has no scheme")
    _check_names(parts, options_of(parts.scheme))
    if parts.scheme == "unix":
        _check_socket(parts)
    else:
        _check_server(parts)
    _check_options(dict(parse_qsl(parts.query, keep_blank_values=True)))
    return join(parts)


def _check_servers(text: str) -> str:
    _check_characters(text)
    try:
        servers = split(text)
        read_servers(text)
    except BadRedisUrl as error:
        raise _bad_redis_url(str(error)) from None
    for parts in servers:
        _check_names(parts, _known_options(parts))
        _check_server(parts)
        _check_options(dict(parse_qsl(parts.query, keep_blank_values=True)))
    return text


def _known_options(parts: SplitResult) -> frozenset[str]:
    if parts.scheme == SENTINEL_SCHEME:
        return options_of("rediss") | SENTINEL_OPTIONS
    return options_of(CLUSTER_SCHEMES.get(parts.scheme, parts.scheme))


def check_broker_url(text: str) -> str:
    """Return the URL, which may be any that Celery takes, or raise ValueError."""
    if not _SCHEME.match(text):
        raise ValueError(
            "a broker URL is what Celery has as broker_url, e.g. redis://host:6379/0 or amqp://host"
        )
    if is_cluster(text):
        raise ValueError("Celery has no Redis Cluster for its broker")
    redis_url = redis_url_of_broker(text)
    if redis_url is not None:
        check_redis_url(redis_url)
    if is_amqp(text):
        _check_hosts(text)
    return text


def _check_hosts(text: str) -> None:
    for each in text.split(";"):
        try:
            parts = urlsplit(each)
            # Else what was read as host and port is the beginning of user and password.
            is_readable = parts.port != 0 and ("@" in parts.netloc or "@" not in each)
        except ValueError:
            is_readable = False
        if not is_readable:
            raise ValueError(
                "host and port cannot be read; what is special in a URL is %xx in user and password"
            ) from None


def redis_url_of_broker(text: str) -> str | None:
    """Turn Celery's URL of a Redis broker into one for a client; None for any other broker."""
    scheme = (_SCHEME.match(text) or [""])[0].lower()
    if scheme == SENTINEL_SCHEME:
        return ";".join(join(_without_others(parts)) for parts in split(text))
    if scheme not in (*REDIS_SCHEMES, SOCKET_SCHEME):
        return None
    return join(translate(_split(text)))


def is_amqp(text: str) -> bool:
    """Tell Celery's URL of a broker that speaks AMQP, e.g. RabbitMQ."""
    return (_SCHEME.match(text) or [""])[0].lower() in AMQP_SCHEMES


def _without_others(parts: SplitResult) -> SplitResult:
    """Kombu passes over what it does not know in a URL, and has options of its own there."""
    known = _known_options(parts)
    query = "&".join(pair for pair in parts.query.split("&") if unquote(pair.partition("=")[0]) in known)
    return parts._replace(query=query)


def _check_characters(text: str) -> None:
    # urlsplit takes the rest for a fragment, which drops the host or the database.
    if "#" in text:
        raise _bad_redis_url("it has a # in it")
    # urlsplit drops tabs and line breaks without a word.
    if re.search(r"[\x00-\x20\x7f]", text):
        raise _bad_redis_url("it has a space or a control character in it")


def _split(text: str) -> SplitResult:
    _check_characters(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _bad_redis_url("its host or port cannot be read") from None
    return parts


def _check_names(parts: SplitResult, known: frozenset[str]) -> None:
    unknown = sorted(name for name, _ in parse_qsl(parts.query) if name not in known)
    if unknown:
        raise _bad_redis_url(f"it has the option {unknown[0]}, allowed are {_listed(known)}")


def _check_server(parts: SplitResult) -> None:
    # A host or a port that is empty is nearly always a variable that was not filled in.
    if not parts.hostname:
        raise _bad_redis_url("it has no host")
    if not _HOST.fullmatch(parts.hostname):
        raise _bad_redis_url("its host is no name and no address")
    if parts.netloc.endswith(":") or parts.port == 0:
        raise _bad_redis_url("its port is not from 1 to 65535")
    database = parts.path.removeprefix("/")
    if database and not _DB.fullmatch(database):
        raise _bad_redis_url("its database is no number")


def _check_socket(parts: SplitResult) -> None:
    if parts.hostname:
        raise _bad_redis_url("a unix URL has three slashes before the path")
    if parts.path in ("", "/"):
        raise _bad_redis_url("it has no path")


def _check_options(options: dict[str, str]) -> None:
    if "db" in options and not _DB.fullmatch(options["db"]):
        raise _bad_redis_url("its database is no number")
    requirement = certificate_requirement(options.get("ssl_cert_reqs", "required"))
    if requirement not in ("none", "optional", "required"):
        raise _bad_redis_url("ssl_cert_reqs is none, optional or required")
    try:
        check_files(urlencode(options))
    except BadRedisUrl as error:
        raise _bad_redis_url(str(error)) from None


def _masked_options(address: str) -> str:
    location, question, query = address.partition("?")
    return location + question + "&".join(_masked_option(option) for option in query.split("&"))


def _masked_option(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}=***" if equals and _CREDENTIAL.search(unquote(name)) else option


def _bad_redis_url(reason: str) -> ValueError:
    return ValueError(f"{reason}; a Redis URL is {_EXAMPLES}, special characters of a password as %xx")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
