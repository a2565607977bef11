"""Tokens as an application would mint them, with PyJWT alone, and keys to sign them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# As long as HS512 wants, so that a test can try that too.
SECRET = "a_secret_of_the_tests_".ljust(64, "x")
OTHER_SECRET = "another_secret_of_the_tests_of_32_bytes_too"

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
PublicKey = RSAPublicKey | EllipticCurvePublicKey


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str | None = "HS256", **headers: Any) -> str:
    """Sign claims as they are."""
    return jwt.encode(claims, key, algorithm, headers=headers)


def token(
    read: Any = "*",
    fields: Any = (),
    *,
    ttl: float = 60,
    key: Any = SECRET,
    algorithm: str = "HS256",
    **more: Any,
) -> str:
    """Mint a token as the documentation says."""
    claims = {"exp": time.time() + ttl, "sidecar": {"read": read, "fields": list(fields)}, **more}
    return signed(claims, key, algorithm)


def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """Make a key for RS256."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key(curve: ec.EllipticCurve | None = None) -> EllipticCurvePrivateKey:
    """Make a key, on the curve of ES256 unless another is named."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def pem(key: PublicKey) -> bytes:
    """Write a public key as it is handed out."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: PublicKey, **more: Any) -> dict[str, Any]:
    """Write a public key as one of a JWKS."""
    if isinstance(key, RSAPublicKey):
        return jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True) | more
    return jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True) | more


def jwks_file(folder: Path, *keys: dict[str, Any]) -> str:
    """Write a JWKS and return its path."""
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": keys}))
    return str(file)


def pem_file(folder: Path, *keys: PublicKey) -> str:
    """Write public keys and return the path."""
    file = folder / "keys.pem"
    file.write_bytes(b"\n".join(map(pem, keys)))
    return str(file)
