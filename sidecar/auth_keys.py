"""The keys that sign and verify tokens, each for one algorithm alone.

A key says which algorithm it is for, never the token: so ``none``, and a public key taken for a secret, have
no way in. Nothing here is loaded before a setting needs it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

# RFC 7518, 3.2: a key of HS256 is not shorter than its hash.
SECRET_MIN_BYTES: Final = 32
# Below this an RSA key can be factored; NIST SP 800-131A.
RSA_MIN_BITS: Final = 2048
# Each of them may be tried for a token that names none.
KEYS_MAX: Final = 20
FILE_MAX_BYTES: Final = 256 * 1024
TICKET_PURPOSE: Final = b"celery-sidecar ticket v1"

_EXPECTED: Final = "a file with public keys in PEM, or a JWKS"
_NEEDS: Final = "RS256 and ES256 need: pip install 'celery-sidecar[server,crypto]'"


@dataclass(frozen=True)
class Key:
    """What verifies, for which algorithm alone, and the id by which a token may name it."""

    algorithm: str
    value: Any = field(repr=False)
    key_id: str | None = None


def check_secret(secret: str, which: str) -> None:
    """Raise ValueError, without the secret, when it is none for HS256."""
    if secret.startswith("-----BEGIN"):
        raise ValueError(
            f"{which} looks like a key in PEM; a public key belongs into SIDECAR_AUTH_PUBLIC_KEY"
        )
    if len(secret.encode("utf-8", "surrogateescape")) < SECRET_MIN_BYTES:
        raise ValueError(
            f"{which} has less than {SECRET_MIN_BYTES} bytes; make one with: openssl rand -hex 32"
        )
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError(f"{which} has other characters than letters, digits and signs")


def secret_keys(secrets: Sequence[str]) -> tuple[Key, ...]:
    """Make keys of HS256; the first one signs."""
    return tuple(Key("HS256", secret.encode()) for secret in secrets)


def ticket_keys(secrets: Sequence[str]) -> tuple[Key, ...]:
    """Make the keys of tickets: others than those of tokens, so that neither can pass for the other."""
    return tuple(
        Key("HS256", hmac.digest(secret.encode(), TICKET_PURPOSE, hashlib.sha256)) for secret in secrets
    )


def read_public_keys(path: str) -> tuple[Key, ...]:
    """Read a file with public keys; raises ValueError with what is allowed."""
    if not (find_spec("cryptography") and find_spec("jwt")):
        raise ValueError(_NEEDS)
    text = _read(path)
    keys = _read_jwks(text) if text.lstrip().startswith("{") else _read_pem(text)
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ValueError(f"it has {len(keys)} keys of RS256 or ES256, not 1 to {KEYS_MAX}")
    return keys


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        raise ValueError(f"{reason}; it is {_EXPECTED}") from None
    if len(content) > FILE_MAX_BYTES or not content.isascii():
        raise ValueError(f"the file is not {_EXPECTED.removeprefix('a file with ')}")
    return content.decode()


def _read_pem(text: str) -> tuple[Key, ...]:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    end = "-----END PUBLIC KEY-----"
    if "PRIVATE KEY" in text:
        raise ValueError("the file has a private key; the sidecar needs the public one alone")
    blocks = [block + end for block in text.split(end)[:-1]]
    if not blocks:
        raise ValueError("the file has no -----BEGIN PUBLIC KEY-----")
    try:
        values = [load_pem_public_key(block.strip().encode()) for block in blocks]
    # What the library raises for a key that it does not know is of many kinds.
    except Exception as error:
        raise ValueError("a key in the file cannot be read") from error
    return tuple(Key(_algorithm(value), value) for value in values)


def _read_jwks(text: str) -> tuple[Key, ...]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the file is no JSON") from None
    found = content.get("keys")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("the file has no list of keys; a JWKS is a JSON object with keys")
    # A key of an algorithm that is not for here is somebody else's, but a secret stands in no public file.
    if any(each.get("kty") == "oct" for each in found):
        raise ValueError("the file has a secret (kty oct); secrets belong into SIDECAR_AUTH_SECRETS")
    if any("d" in each for each in found):
        raise ValueError("the file has a private key; the sidecar needs the public one alone")
    return tuple(_read_jwk(each) for each in found if _is_for_here(each))


def _is_for_here(jwk: dict[str, Any]) -> bool:
    kind, use = jwk.get("kty"), jwk.get("use", "sig")
    algorithm = "RS256" if kind == "RSA" else "ES256" if (kind, jwk.get("crv")) == ("EC", "P-256") else None
    return algorithm is not None and jwk.get("alg", algorithm) == algorithm and use == "sig"


def _read_jwk(jwk: dict[str, Any]) -> Key:
    from jwt import PyJWK

    key_id = jwk.get("kid")
    try:
        value = PyJWK(jwk).key
    # As above: also KeyError and what is not a number.
    except Exception as error:
        raise ValueError("a key in the file cannot be read") from error
    return Key(_algorithm(value), value, key_id if isinstance(key_id, str) else None)


def _algorithm(value: PublicKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(value, RSAPublicKey):
        if value.key_size < RSA_MIN_BITS:
            raise ValueError(f"an RSA key in the file has less than {RSA_MIN_BITS} bits")
        return "RS256"
    if isinstance(value, EllipticCurvePublicKey) and value.curve.name == "secp256r1":
        return "ES256"
    raise ValueError("a key in the file is neither RSA nor on the curve P-256")
