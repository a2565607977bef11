"""Reads the settings that say who may come in; each function raises ValueError with what is allowed.

No error has a secret in it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from sidecar.auth_keys import check_secret, read_public_keys

ANONYMOUS: Final = ("read", "read,args")
_HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*", re.ASCII)
_RATE: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)


def parse_secrets(text: str) -> tuple[str, ...]:
    """Read secrets between commas, the first of which signs."""
    secrets = [secret.strip() for secret in text.split(",")] if text else []
    for number, secret in enumerate(secrets, 1):
        check_secret(secret, "the secret" if len(secrets) == 1 else f"secret {number} of {len(secrets)}")
    return tuple(dict.fromkeys(secrets))


def check_public_key(path: str) -> str:
    """Read the path of a file with public keys, and try it."""
    if path:
        read_public_keys(path)
    return path


def check_audience(text: str) -> str:
    """Read what stands in the claim aud."""
    if not text.isprintable() or len(text) > 1000:
        raise ValueError("an audience is a text of at most 1000 characters, e.g. https://queue.example.com")
    return text


def check_allow_anonymous(text: str) -> str:
    """Read what everyone may do; nothing where it is empty."""
    words = re.sub(r"\s", "", text).lower()
    if words and words not in ANONYMOUS:
        raise ValueError(f"what everyone may do is one of {' or '.join(ANONYMOUS)}")
    return words


def parse_hosts(text: str) -> tuple[str, ...]:
    """Read names of hosts between commas."""
    names = [name.strip().lower() for name in text.split(",")] if text else []
    if not all(name == "*" or _HOST.fullmatch(name) for name in names):
        raise ValueError(
            "hosts are names without scheme and port, with commas between, e.g. queue.example.com,*.lan; "
            "addresses are always allowed"
        )
    return tuple(dict.fromkeys(names))


def parse_origins(text: str) -> tuple[str, ...]:
    """Read origins between commas, as a browser writes them, or ``*`` alone."""
    origins = [origin.strip() for origin in text.split(",")] if text else []
    if "*" in origins and len(origins) > 1:
        raise ValueError("* is any origin and stands alone; with cookies each origin has to be named")
    for origin in origins:
        if origin != "*" and not _is_origin(origin):
            raise ValueError(
                "an origin is what a browser sends: scheme and host in lower case, a port that is not the "
                "scheme's own, nothing behind, e.g. https://app.example.com"
            )
    return tuple(dict.fromkeys(origins))


def parse_rate(text: str) -> float:
    """Read a number of questions a second."""
    if not _RATE.fullmatch(text):
        raise ValueError("a rate is a number of questions a second, e.g. 100 or 0.5, or 0 for any number")
    return float(text)


def check_open_address(host: str) -> str | None:
    """Say what to do where everyone on the network could read; None on loopback."""
    if is_loopback(host):
        return None
    return (
        f"{host} can be reached by others, and nobody said who may read: set SIDECAR_AUTH_SECRETS (make one "
        "with: openssl rand -hex 32) or SIDECAR_AUTH_PUBLIC_KEY so that a token is needed, or "
        "SIDECAR_ALLOW_ANONYMOUS=read so that anyone may read"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    bare = f"{parts.scheme}://{parts.netloc}" == text == text.lower()
    return bool(bare and parts.scheme and parts.hostname and not set("@*") & set(text)) and port != (
        default or 0
    )
