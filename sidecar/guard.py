"""What stands in front of the routes, from the outside in, as the settings say."""

from __future__ import annotations

from starlette.types import ASGIApp

from sidecar.access import Access, AccessControl
from sidecar.auth_keys import Key, read_public_keys, secret_keys, ticket_keys
from sidecar.cors import Cors
from sidecar.headers import ResponseHeaders
from sidecar.hosts import LOOPBACK_NAMES, AllowedHosts
from sidecar.paths import METRICS
from sidecar.principal import Principal, anonymous_principal
from sidecar.rates import RateLimit, Rates
from sidecar.request_limits import RequestLimits
from sidecar.request_log import RequestLog
from sidecar.scope import ARGS
from sidecar.settings import METRICS_BY_TOKEN, Settings
from sidecar.tickets import Tickets
from sidecar.tokens import Tokens


def make_access(settings: Settings) -> Access:
    """Load the keys; raises ValueError where a file has changed since the settings were read."""
    tickets = Tickets(ticket_keys(settings.auth_secrets)) if settings.auth_secrets else None
    keys = _token_keys(settings)
    tokens = Tokens(keys, settings.auth_audience) if keys else None
    # With it off it is open as well: that there is nothing may be known.
    opened = frozenset() if settings.metrics == METRICS_BY_TOKEN else frozenset({METRICS})
    return Access(tokens, tickets, _anonymous(settings), opened)


def guard(app: ASGIApp, settings: Settings, access: Access) -> ASGIApp:
    """Put everything in front of an application; what costs least is asked first."""
    app = AccessControl(app, access)
    if settings.rate_limit:
        app = RateLimit(app, Rates(settings.rate_limit), settings.trusted_proxies)
    app = RequestLimits(app)
    app = Cors(app, settings.cors_origins)
    app = AllowedHosts(app, _hosts(settings))
    logs = settings.access_log == "on"
    return ResponseHeaders(app, RequestLog(logs=logs, trusted=settings.trusted_proxies))


def _token_keys(settings: Settings) -> tuple[Key, ...]:
    """One kind alone: beside a public key the secrets are for tickets."""
    if settings.auth_public_key:
        return read_public_keys(settings.auth_public_key)
    return secret_keys(settings.auth_secrets)


def _anonymous(settings: Settings) -> Principal | None:
    if settings.allow_anonymous:
        return anonymous_principal(frozenset({ARGS} & set(settings.allow_anonymous.split(","))))
    if settings.authenticates or not settings.on_loopback:
        return None
    return anonymous_principal(frozenset({ARGS}))


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Any name, unless some are configured or only loopback is listened on, of which nobody owns a name."""
    if not settings.allowed_hosts and not settings.on_loopback:
        return ()
    return (*LOOPBACK_NAMES, *settings.allowed_hosts)
