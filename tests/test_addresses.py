"""A request is counted under the address of its client, which only a trusted proxy may name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from sidecar.addresses import client_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("expected", "peer", "forwarded"),
    [
        ("192.0.2.1", "192.0.2.1", []),
        ("192.0.2.1", "192.0.2.1", ["198.51.100.9"]),
        ("198.51.100.9", "10.0.0.1", ["198.51.100.9"]),
        ("198.51.100.9", "10.0.0.1", ["1.1.1.1, 198.51.100.9, 10.0.0.2"]),
        ("198.51.100.9", "10.0.0.1", ["1.1.1.1", "198.51.100.9,10.0.0.2"]),
        ("198.51.100.9", "10.0.0.1", ["198.51.100.9:1234"]),
        ("2001:db8::/64", "fd00::1", ["[2001:db8::1]:80"]),
        ("2001:db8::/64", "fd00::1", ["2001:db8::1"]),
        ("10.0.0.1", "10.0.0.1", []),
        ("10.0.0.2", "10.0.0.1", ["10.0.0.2"]),
        ("10.0.0.1", "10.0.0.1", ["unknown"]),
        ("10.0.0.2", "10.0.0.1", ["1.1.1.1, é, 10.0.0.2"]),
        ("10.0.0.1", "::ffff:10.0.0.1", []),
        ("", "", ["1.1.1.1"]),
    ],
)
def test_client_address(expected: str, peer: str, forwarded: list[str]) -> None:
    """The right-most address that no trusted proxy has; the rest may be invented."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    scope = {"client": (peer, 5) if peer else None, "headers": [(b"host", b"x"), *headers]}
    assert expected == client_address(scope, TRUSTED)
