"""Under which names the sidecar lets itself be asked.

A page of the internet may have its own name point to 127.0.0.1 and then counts as being of the same origin as
what listens there (DNS rebinding). What tells it is the name in ``Host``, which the page cannot choose: it is
its own. An address is no name, so nobody can rebind it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.headers import read_headers
from sidecar.paths import is_open
from sidecar.problems import problem

ANY_HOST: Final = "*"
LOOPBACK_NAMES: Final = ("localhost", "*.localhost")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::[0-9]{1,5})?", re.ASCII)


class AllowedHosts:
    """Refuses what was asked under another name; no names let every one pass."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app = app
        self._names = () if ANY_HOST in names else names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or self._admits(scope) or is_open(scope):
            await self._app(scope, receive, send)
            return
        detail = "this name is not among SIDECAR_ALLOWED_HOSTS"
        await problem(421, detail, code="host_not_allowed")(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        if not self._names:
            return True
        host = host_of(scope)
        return is_address(host) or any(_matches(host, name) for name in self._names)


def host_of(scope: Scope) -> str:
    """The name under which the sidecar is asked, without the port; empty where it is not told in one way."""
    hosts = read_headers(scope, b"host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return match[1].lower().rstrip(".") if match else ""


def is_address(host: str) -> bool:
    """Tell an address from a name; IPv6 stands in brackets."""
    return _address(host) is not None


def is_loopback_host(host: str) -> bool:
    """Tell whether a browser that asks under this name is on this machine."""
    address = _address(host)
    if address is None:
        return any(_matches(host, name) for name in LOOPBACK_NAMES)
    return address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _matches(host: str, name: str) -> bool:
    """Tell whether a host is of this name: ``*.a.b`` is what is below ``a.b``, not itself."""
    return host.endswith(name[1:]) and len(host) >= len(name) if name.startswith("*.") else host == name
