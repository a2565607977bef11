"""Reads the value of a setting from its text; each function raises ValueError with what is allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# One for each core is what helps; more is a slip of the hand.
WORKERS_MAX = 256


def parse_host(text: str) -> str:
    """Read a name or an address to listen on."""
    if re.fullmatch(r"[A-Za-z0-9._\-]+", text, re.ASCII) or _is_ipv6(text):
        return text
    raise ValueError(
        "a host is a name or an address without port or brackets, e.g. 127.0.0.1, 0.0.0.0 or ::1"
    )


def parse_port(text: str) -> int:
    """Read a TCP port; 0 takes any free one."""
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and int(text) <= 65535:
        return int(text)
    expected = "a port is a whole number from 1 to 65535, or 0 for any free one"
    if text.startswith(("tcp://", "udp://")):
        # https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
        expected += (
            "; Kubernetes sets this variable for a Service named 'sidecar': "
            "use --port, or enableServiceLinks: false in the Pod"
        )
    raise ValueError(expected)


def parse_count(text: str) -> int:
    """Read how many of something there may be."""
    if re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and int(text) > 0:
        return int(text)
    raise ValueError("a count is a whole number from 1 to 9999999")


def parse_workers(text: str) -> int:
    """Read how many processes serve."""
    if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) and 1 <= int(text) <= WORKERS_MAX:
        return int(text)
    raise ValueError(f"processes are a whole number from 1 to {WORKERS_MAX}")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read addresses and networks between commas."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            "addresses are 10.0.0.7 or ::1, networks 10.0.0.0/8 or fd00::/8, with commas between"
        ) from None


def parse_seconds(text: str) -> float:
    """Read a length of time, of an hour at most."""
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text, re.ASCII) and float(text) <= 3600:
        return float(text)
    raise ValueError("seconds are a number from 0 to 3600, e.g. 5 or 0.5")


def parse_root_path(text: str) -> str:
    """Read the prefix under which a proxy shows the sidecar; without a slash at its end."""
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(?:/[A-Za-z0-9._~\-]+)+", path, re.ASCII):
        raise ValueError("a root path begins with a slash, e.g. /ops/queue")
    return path


def parse_queues(text: str) -> tuple[str, ...]:
    """Read names of queues between commas, in their order, each once."""
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names) or not text.isprintable():
        raise ValueError("queues are names with commas between them, e.g. high,low")
    return tuple(dict.fromkeys(names))


def one_of(what: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    """Make a parser of one of the words, in any case."""

    def parse(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise ValueError(f"{what} is one of {', '.join(choices)}")

    return parse


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
