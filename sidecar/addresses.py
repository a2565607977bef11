"""Whose request it is: the peer, or whom a proxy that is trusted names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# A host with IPv6 has so large a network, and may take another address of it for each request.
V6_PREFIX_BITS = 64
# As proxies write it, some with a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1]:80
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The address, or the network of one, that a request is counted under; empty for a peer that has none.

    Of ``X-Forwarded-For`` the right-most address counts that no trusted proxy has: what is left of it the
    client itself may have written.
    """
    peer = _parse((scope.get("client") or ("",))[0])
    if peer is None:
        return ""
    for hop in reversed(_forwarded_for(scope["headers"])):
        if not _is_in(peer, trusted):
            break
        named = _parse(hop)
        if named is None:
            break
        peer = named
    return _counted(peer)


def _counted(address: Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address), V6_PREFIX_BITS), strict=False))


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    values = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [hop.strip() for hop in ",".join(values).split(",") if hop.strip()]


def _parse(text: str) -> Address | None:
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    # One that listens on :: sees clients of IPv4 so.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
