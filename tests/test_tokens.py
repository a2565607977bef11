"""A token is read only if everything about it is right, and is refused under one of four codes otherwise."""

from __future__ import annotations

import base64
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sidecar.auth_keys import Key, read_public_keys, secret_keys
from sidecar.denials import Denied, ScopeInsufficient, TokenExpired, TokenInvalid
from sidecar.scope import ALL, make_scope
from sidecar.tokens import TOKEN_MAX_CHARS, Tokens, make_token
from tests.support.tokens import (
    OTHER_SECRET,
    SECRET,
    PrivateKey,
    ec_key,
    jwk,
    jwks_file,
    pem,
    pem_file,
    rsa_key,
    signed,
    token,
)

HS256 = Tokens(secret_keys([SECRET]))
RSA, EC = rsa_key(), ec_key()


def rewritten(text: str, header: Any) -> str:
    """Put another header before a token, without signing it."""
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return ".".join([encoded, *text.split(".")[1:]])


def test_a_good_token() -> None:
    """Who has it may see what it says until it ends."""
    end = time.time() + 60.5
    principal = HS256.read(token({"tasks": ["a"], "queues": ["q"]}, ["args"], exp=end))
    assert make_scope(["a"], [], ["q"]) == principal.scope
    assert (True, end, False) == (principal.sees_args, principal.expires_at, principal.anonymous)


def test_minted_here() -> None:
    """What this program mints any JWT library reads, and this program too."""
    minted = make_token(secret_keys([SECRET])[0], ALL, frozenset(), seconds=60, audience="queue")
    claims = jwt.decode(minted, SECRET, ["HS256"], audience="queue")
    assert {"read": "*", "fields": []} == claims["sidecar"]
    assert 60 == claims["exp"] - claims["iat"]
    assert ALL == Tokens(secret_keys([SECRET]), "queue").read(minted).scope


def test_rotation() -> None:
    """While secrets are exchanged, tokens of each are good; of one that was taken out no longer."""
    both, new = Tokens(secret_keys([OTHER_SECRET, SECRET])), Tokens(secret_keys([OTHER_SECRET]))
    for key in (SECRET, OTHER_SECRET):
        assert ALL == both.read(token(key=key)).scope
    with pytest.raises(TokenInvalid):
        new.read(token(key=SECRET))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9",
        token() + ".x",
        token() + "x",
        token()[:-2],
        token(key=OTHER_SECRET),
        token(algorithm="HS512"),
        signed({"exp": time.time() + 60, "sidecar": {"read": "*"}}, None, None),
        signed({"exp": time.time() + 60, "sidecar": {"read": "*"}}, None, "none"),
        rewritten(token(), {"alg": "none"}),
        rewritten(token(), {"alg": "None"}),
        rewritten(token(), {"alg": ["HS256"]}),
        rewritten(token(), {"alg": None}),
        rewritten(token(), {}),
        rewritten(token(), []),
        rewritten(token(), {"alg": "HS256", "kid": 5}),
        token().rsplit(".", 1)[0] + ".",
        signed({"exp": time.time() + 60, "sidecar": {"read": "*"}}, crit=["x"], x=1),
        "ä.ö.ü",
        "\ud800.a.b",
    ],
    ids=itertools.count(),  # a token has its time in it, and each process of the tests makes its own
)
def test_forged(text: str) -> None:
    """What is not signed here with the algorithm of the settings is refused, whatever it says of itself."""
    with pytest.raises(TokenInvalid):
        HS256.read(text)


@pytest.mark.parametrize(
    "exp", [None, "soon", "", [], {}, -1e400, 1e400, 1e13, float("nan"), 10**30, "9" * 30]
)
def test_wrong_end(exp: Any) -> None:
    """A token without an end, or with one that is no time, is refused."""
    with pytest.raises(TokenInvalid):
        HS256.read(token(exp=exp))
    with pytest.raises(TokenInvalid):
        HS256.read(signed({"sidecar": {"read": "*"}}))


@pytest.mark.parametrize("ttl", [0, -0.5, -5, -60, -1e9])
def test_expired(ttl: float) -> None:
    """At its end it is over, and the difference of two clocks puts nothing off."""
    with pytest.raises(TokenExpired):
        HS256.read(token(ttl=ttl))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_not_yet(claim: str) -> None:
    """Before its time it is refused; a clock that is some seconds ahead does no harm."""
    with pytest.raises(TokenInvalid):
        HS256.read(token(ttl=120, **{claim: time.time() + 60}))
    with pytest.raises(TokenInvalid):
        HS256.read(token(**{claim: "soon"}))
    assert ALL == HS256.read(token(**{claim: time.time() + 3})).scope


@pytest.mark.parametrize(
    ("expected", "audience", "more"),
    [
        (True, "", {}),
        (True, "", {"aud": "another"}),
        (True, "queue", {"aud": "queue"}),
        (True, "queue", {"aud": ["another", "queue"]}),
        (False, "queue", {}),
        (False, "queue", {"aud": "another"}),
        (False, "queue", {"aud": []}),
        (False, "queue", {"aud": 5}),
        (False, "queue", {"aud": "que"}),
    ],
)
def test_audience(expected: bool, audience: str, more: dict[str, Any]) -> None:
    """Where an audience is set, a token for another one, or for none, is refused."""
    tokens = Tokens(secret_keys([SECRET]), audience)
    if expected:
        assert ALL == tokens.read(token(**more)).scope
    else:
        with pytest.raises(TokenInvalid):
            tokens.read(token(**more))


@pytest.mark.parametrize(
    "read", [{}, {"tasks": []}, {"tasks": [], "names": [], "queues": []}, {"new": ["x"]}]
)
def test_an_empty_scope(read: Any) -> None:
    """Without a scope there is no access: the token is good, and reaches nothing."""
    with pytest.raises(ScopeInsufficient):
        HS256.read(token(read))
    with pytest.raises(ScopeInsufficient):
        HS256.read(signed({"exp": time.time() + 60}))


@pytest.mark.parametrize(
    "claim", [None, "*", [], 5, {"read": "all"}, {"read": ["*"]}, {"read": "*", "fields": "args"}]
)
def test_a_wrong_scope(claim: Any) -> None:
    """A claim that cannot be read is refused."""
    with pytest.raises(TokenInvalid):
        HS256.read(token(sidecar=claim))


def test_huge() -> None:
    """A token beyond any use is refused before anything is decoded, also a nested one within the limit."""
    with pytest.raises(TokenInvalid, match=str(TOKEN_MAX_CHARS)):
        HS256.read("a" * (TOKEN_MAX_CHARS + 1))
    with pytest.raises(TokenInvalid):
        HS256.read(jwt.api_jws.encode(b'{"a":' + b"[" * 5000, SECRET))


def test_nothing_of_the_token_is_told() -> None:
    """The text of a denial goes to the client and into logs: it has nothing of the token in it."""
    bad = token({"tasks": ["hunter2", 5]}, aud="hunter2", nbf="hunter2")
    for tokens in (HS256, Tokens(secret_keys([OTHER_SECRET])), Tokens(secret_keys([SECRET]), "queue")):
        with pytest.raises(Denied) as raised:
            tokens.read(bad)
        assert "hunter2" not in str(raised.value)
        assert SECRET not in repr(tokens)


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC)])
def test_public_keys(algorithm: str, key: PrivateKey, tmp_path: Path) -> None:
    """With a public key its algorithm alone is taken, from a PEM and from a JWKS."""
    for path in (pem_file(tmp_path, key.public_key()), jwks_file(tmp_path, jwk(key.public_key(), kid="a"))):
        tokens = Tokens(read_public_keys(path))
        assert ALL == tokens.read(token(key=key, algorithm=algorithm)).scope
        assert ALL == tokens.read(signed(claims(), key, algorithm, kid="unknown")).scope
        for bad in (token(), token(key=ec_key(), algorithm="ES256"), signed(claims(), None, "none")):
            with pytest.raises(TokenInvalid):
                tokens.read(bad)


def claims() -> dict[str, Any]:
    """What a good token says."""
    return {"exp": time.time() + 60, "sidecar": {"read": "*"}}


@pytest.mark.parametrize("key", [RSA, EC])
@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_a_public_key_is_no_secret(key: PrivateKey, algorithm: str, tmp_path: Path) -> None:
    """A token that is signed with the public key as if that were a secret is refused."""
    path = pem_file(tmp_path, key.public_key())
    for secret in (pem(key.public_key()), pem(key.public_key()).strip(), Path(path).read_bytes()):
        forged = _hmac_token(secret, algorithm)
        with pytest.raises(TokenInvalid):
            Tokens(read_public_keys(path)).read(forged)


def _hmac_token(secret: bytes, algorithm: str) -> str:
    # PyJWT refuses to sign with what looks like a PEM, which an attacker would not ask.
    signer = jwt.algorithms.get_default_algorithms()[algorithm]
    parts = [{"alg": algorithm, "typ": "JWT"}, claims()]
    body = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return (body + b"." + base64.urlsafe_b64encode(signer.sign(body, secret)).rstrip(b"=")).decode()


def test_several_public_keys(tmp_path: Path) -> None:
    """While keys are exchanged, tokens of each are good, whatever their algorithms and ids."""
    rsa, ecc = jwk(RSA.public_key(), kid="r"), jwk(EC.public_key(), kid="e")
    mixed = jwks_file(
        tmp_path, rsa, ecc, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"kty": "new"}, ecc | {"use": "enc"}
    )
    for path in (mixed, pem_file(tmp_path, RSA.public_key(), EC.public_key())):
        tokens = Tokens(read_public_keys(path))
        assert 2 == len(tokens.keys)
        for key, algorithm in ((RSA, "RS256"), (EC, "ES256")):
            assert ALL == tokens.read(token(key=key, algorithm=algorithm)).scope
    named = Tokens(read_public_keys(jwks_file(tmp_path, rsa, jwk(rsa_key().public_key(), kid="other"))))
    assert ALL == named.read(signed(claims(), RSA, "RS256", kid="r")).scope
    with pytest.raises(TokenInvalid):
        named.read(signed(claims(), RSA, "RS256", kid="other"))


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        ("no -----BEGIN PUBLIC KEY-----", b""),
        ("no -----BEGIN PUBLIC KEY-----", b"hunter2"),
        ("cannot be read", b"-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----\n"),
        ("private key", b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"),
        ("no JSON", b'{"keys":'),
        ("no JSON", b'{"keys":' + b"[" * 100_000),
        ("no list of keys", b"{}"),
        ("no list of keys", b'{"keys":["hunter2"]}'),
        ("0 keys", b'{"keys":[]}'),
        ("0 keys", b'{"keys":[{"kty":"EC","crv":["P-256"]}]}'),
        ("cannot be read", b'{"keys":[{"kty":"EC","crv":"P-256","x":"hunter2"}]}'),
        ("cannot be read", b'{"keys":[{"kty":"RSA","n":5,"e":[]}]}'),
        ("secret", b'{"keys":[{"kty":"oct","k":"hunter2"}]}'),
        ("private key", b'{"keys":[{"kty":"EC","crv":"P-256","d":"hunter2"}]}'),
        ("PEM", b"x" * 300_000),
        ("PEM", b"\xff"),
        ("less than 2048 bits", pem(rsa_key(1024).public_key())),
        ("P-256", pem(ec_key(ec.SECP384R1()).public_key())),
        ("21 keys", pem(EC.public_key()) * 21),
    ],
)
def test_wrong_key_files(expected: str, content: bytes, tmp_path: Path) -> None:
    """A file of which no key can be used is refused with the reason, and nothing of it is told."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=expected) as raised:
        read_public_keys(str(file))
    assert "hunter2" not in str(raised.value)


@given(st.text() | st.text("eyJ.-_0aA=", max_size=40))
def test_any_text(text: str) -> None:
    """Whatever is given for a token is refused, and raises nothing else."""
    with pytest.raises(Denied):
        HS256.read(text)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
names = st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "sidecar"])


@given(st.dictionaries(names, anything, max_size=6), st.booleans())
def test_any_claims(given_claims: dict[str, Any], ends: bool) -> None:
    """Whatever a signed token claims is read or denied, with and without an audience."""
    text = _signed_bytes(claims() | given_claims if ends else given_claims)
    for audience in ("", "queue"):
        try:
            principal = Tokens((Key("HS256", SECRET.encode()),), audience).read(text)
        except Denied:
            continue
        assert principal.expires_at is not None
        assert principal.expires_at > time.time()
        assert not principal.scope.is_empty


def _signed_bytes(payload: dict[str, Any]) -> str:
    # The library itself would not sign some of these.
    return jwt.api_jws.encode(json.dumps(payload).encode(), SECRET)
