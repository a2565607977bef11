"""What the documents say about access is held against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar import credentials, denials, scope, tickets
from sidecar.auth_keys import secret_keys
from sidecar.denials import Denied
from sidecar.settings import SETTINGS
from sidecar.tokens import CLOCK_SKEW_SECONDS, Tokens
from tests.support.tokens import SECRET, signed

ROOT = Path(__file__).resolve().parents[1]
SECURITY = (ROOT / "docs" / "security.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", SECURITY, re.DOTALL)


def test_the_example_of_a_token_is_one() -> None:
    """The claims that are shown are read as the text says."""
    [example] = re.findall(r"```json\n(.*?)```", SECURITY, re.DOTALL)
    claims = json.loads(example)
    principal = Tokens(secret_keys([SECRET]), claims["aud"]).read(signed(claims))
    shown = scope.make_scope(*claims["sidecar"]["read"].values())
    assert (shown, True, float(claims["exp"])) == (principal.scope, principal.sees_args, principal.expires_at)


@pytest.mark.parametrize("example", PYTHON)
def test_the_claims_of_the_examples(example: str) -> None:
    """What the examples for Django and FastAPI mint, and how they find the secret, is right."""
    lines = [line.strip() for line in example.splitlines()]
    known: dict[str, Any] = {"tasks": ["a"], "user": type("User", (), {"tenant": "x"})}
    [claims] = [line for line in lines if line.startswith("claims = ")]
    [secret] = [line.partition(" = ")[2] for line in lines if line.lower().startswith("secret = ")]
    [minted] = re.findall(r'jwt\.encode\(claims, \w+, "HS256"\)', example)
    environment = type("os", (), {"environ": {"SIDECAR_AUTH_SECRETS": f" {SECRET} ,other"}})
    source = f"import time, jwt\n{claims}\nsecret = SECRET = {secret}\ntoken = {minted}"
    exec(compile(source, "example", "exec"), known | {"os": environment}, found := {})  # noqa: S102  # our own text
    assert not Tokens(secret_keys([SECRET])).read(found["token"]).scope.is_empty


def test_every_code_is_told() -> None:
    """The table of the answers has each code that the guards give, and no other."""
    kinds = [each for each in vars(denials).values() if isinstance(each, type) and issubclass(each, Denied)]
    modules = (ROOT / "sidecar").glob("*.py")
    others = {code for file in modules for code in re.findall(r'code="(\w+)"', file.read_text())}
    answers = SECURITY.split("## Answers")[1].split("## ")[0]
    assert {kind.code for kind in kinds} | others == set(re.findall(r"[45]\d\d `(\w+)`", answers))


def test_every_setting_is_one() -> None:
    """No setting is named that is not there, and none of those of access is left out."""
    named = set(re.findall(r"SIDECAR_[A-Z_]+", SECURITY))
    access = {setting.variable for setting in SETTINGS if re.match("auth|allow|cors|rate", setting.name)}
    assert access <= named <= {setting.variable for setting in SETTINGS}


def test_figures() -> None:
    """Times and lengths are those of the code."""
    assert f'"expires_in":{tickets.TICKET_SECONDS}' in SECURITY
    assert f"with {CLOCK_SKEW_SECONDS} s for clocks" in SECURITY
    assert f"at most {credentials.COOKIE_TOKEN_MAX_CHARS:,} characters" in SECURITY
    assert f"`{credentials.COOKIE}`" in SECURITY
    assert f"`{credentials.LOOPBACK_COOKIE}`" in SECURITY


def test_links() -> None:
    """No link of the documents is dead."""
    for name in ("SECURITY.md", "docs/security.md"):
        file = ROOT / name
        targets = [target for target in re.findall(r"\]\(([^)]+)\)", file.read_text()) if "://" not in target]
        assert [] == [target for target in targets if not (file.parent / target).exists()]
