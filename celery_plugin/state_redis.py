"""Which Redis the state goes to: the one that the settings name, else the broker, else the result backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from celery_plugin.contract import Keys
from celery_plugin.redis_servers import (
    SENTINEL_PORT,
    SENTINEL_SCHEME,
    Sentinels,
    Servers,
    addresses_of,
    read_servers,
)
from celery_plugin.redis_urls import SOCKET_SCHEME, certificate_requirement, join, name_check, translate
from celery_plugin.settings import Settings


class Place(NamedTuple):
    """A URL for redis-py, what Celery's settings say about TLS (options of redis-py by name), and who knows
    the server that is to stand in the URL, where it is not always the same.
    """

    url: str
    tls: Mapping[str, Any] = {}
    servers: Servers | None = None

    def __str__(self) -> str:
        if self.servers is not None:
            return str(self.servers)
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"


def named_redis(settings: Settings) -> Place | None:
    """The Redis that the settings name."""
    if settings.redis_url is None:
        return None
    url, servers = read_servers(settings.redis_url, Keys(settings.prefix).log)
    return Place(url, name_check(url), servers)


def find_redis(app: Any) -> Place | None:
    """Find the broker if it is Redis, else the result backend if it is."""
    return _broker(app.connection_for_read()) or _backend(app.conf)


def _broker(broker: Any) -> Place | None:
    url = broker.as_uri(include_password=True)
    if broker.transport_cls == SENTINEL_SCHEME:
        return _master(broker.alt or [url], broker.ssl, broker.transport_options)
    # Kombu has read the options of the broker's URL already, the URL that it makes has none.
    return _place(url, broker.ssl)


def _backend(conf: Any) -> Place | None:
    url, tls = conf.result_backend, conf.redis_backend_use_ssl
    if not isinstance(url, str):
        return None
    if urlsplit(url).scheme == SENTINEL_SCHEME:
        return _master(url.split(";"), tls, conf.result_backend_transport_options)
    return _place(url, tls)


def _place(url: str, tls: Any) -> Place | None:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", SOCKET_SCHEME):
        return None
    options = _readable(tls) if isinstance(tls, Mapping) and parts.scheme != SOCKET_SCHEME else {}
    return Place(join(translate(_encrypted(parts) if options else parts)), options)


def _master(urls: Sequence[str], tls: Any, options: Mapping[str, Any]) -> Place | None:
    """The master that Sentinels know; Celery takes login and database from the first URL."""
    if not options.get("master_name"):
        return None
    parts = [urlsplit(url) for url in urls]
    sentinels = Sentinels(
        addresses_of(parts, SENTINEL_PORT), options["master_name"], options.get("sentinel_kwargs") or {}
    )
    encryption = _readable(tls) if isinstance(tls, Mapping) else {}
    first = parts[0]._replace(scheme="redis", path=f"/{parts[0].path.strip('/') or 0}", query="")
    return Place(join(_encrypted(first) if encryption else first), encryption, sentinels)


def _encrypted(parts: SplitResult) -> SplitResult:
    # Celery encrypts a redis:// too where the settings have TLS options for it.
    return parts._replace(scheme="rediss")


def _readable(tls: Mapping[str, Any]) -> dict[str, Any]:
    """Celery knows ``CERT_REQUIRED`` also as a word, redis-py does not."""
    required = tls.get("ssl_cert_reqs")
    word = {"ssl_cert_reqs": certificate_requirement(required)} if isinstance(required, str) else {}
    return {**tls, **word}
