"""Which Redis the state goes to: the one that the settings name, else the broker, else the result backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from celery_plugin.redis_urls import SOCKET_SCHEME, certificate_requirement, join, translate


class Place(NamedTuple):
    """A URL for redis-py, and what Celery's settings say about TLS: options of redis-py by name."""

    url: str
    tls: Mapping[str, Any] = {}


def find_redis(app: Any) -> Place | None:
    """Find the broker if it is Redis, else the result backend if it is."""
    broker = app.connection_for_read()
    backend = app.conf.result_backend
    # Kombu has read the options of the broker's URL already, the URL that it makes has none.
    return _place(broker.as_uri(include_password=True), broker.ssl) or _place(
        backend if isinstance(backend, str) else "", app.conf.redis_backend_use_ssl
    )


def _place(url: str, tls: Any) -> Place | None:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", SOCKET_SCHEME):
        return None
    options = _readable(tls) if isinstance(tls, Mapping) and parts.scheme != SOCKET_SCHEME else {}
    return Place(join(translate(_encrypted(parts) if options else parts)), options)


def _encrypted(parts: SplitResult) -> SplitResult:
    # Celery encrypts a redis:// too where the settings have TLS options for it.
    return parts._replace(scheme="rediss")


def _readable(tls: Mapping[str, Any]) -> dict[str, Any]:
    """Celery knows ``CERT_REQUIRED`` also as a word, redis-py does not."""
    required = tls.get("ssl_cert_reqs")
    word = {"ssl_cert_reqs": certificate_requirement(required)} if isinstance(required, str) else {}
    return {**tls, **word}
