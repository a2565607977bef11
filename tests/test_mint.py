"""The command that mints a token: what it prints opens what it was told to, and nothing else is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest

from sidecar.auth_keys import secret_keys
from sidecar.cli import main
from sidecar.principal import Principal
from sidecar.scope import ALL, Scope, make_scope
from sidecar.tokens import Tokens
from tests.support.tokens import OTHER_SECRET, SECRET


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two secrets, and nothing of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SIDECAR_AUTH_SECRETS", f"{SECRET},{OTHER_SECRET}")


def minted(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[str, Principal]:
    """Run the command and read what it prints."""
    assert 0 == main(["token", *argv])
    [line] = capsys.readouterr().out.splitlines()
    return line, Tokens(secret_keys([SECRET])).read(line)


@pytest.mark.parametrize(
    ("expected", "argv"),
    [
        (ALL, ["--all"]),
        (make_scope(["a"], [], []), ["--task", "a"]),
        (make_scope(["a", "b"], ["x.*"], ["q"]), ["--task=a", "--task=b", "--name", "x.*", "--queue", "q"]),
    ],
)
def test_scope(expected: Scope, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The flags say what it may read, and add up."""
    _, principal = minted(capsys, *argv)
    assert (expected, frozenset()) == (principal.scope, principal.fields)


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments are shown only where that is said."""
    assert {"args"} == minted(capsys, "--all", "--fields", "args")[1].fields


@pytest.mark.parametrize(
    ("seconds", "argv"),
    [
        (900, []),
        (90, ["--ttl", "90s"]),
        (900, ["--ttl=15m"]),
        (28800, ["--ttl", "8h"]),
        (7 * 86400, ["--ttl", "7d"]),
    ],
)
def test_ttl(seconds: int, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It ends after the time that is given."""
    end = minted(capsys, "--all", *argv)[1].expires_at
    assert end is not None
    assert end - time.time() == pytest.approx(seconds, abs=10)


def test_the_first_secret_signs(capsys: pytest.CaptureFixture[str]) -> None:
    """The first secret is the new one while they are exchanged."""
    line, _ = minted(capsys, "--all")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(line, OTHER_SECRET, ["HS256"])


def test_audience(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The audience is that of the settings."""
    monkeypatch.setenv("SIDECAR_AUTH_AUDIENCE", "queue")
    assert 0 == main(["token", "--all"])
    claims: dict[str, Any] = jwt.decode(
        capsys.readouterr().out.strip(), SECRET, ["HS256"], options={"verify_aud": False}
    )
    assert "queue" == claims["aud"]


@pytest.mark.parametrize(
    ("expected", "argv"),
    [
        (["what may it read?"], []),
        (["--all is everything"], ["--all", "--task", "a"]),
        (["--ttl is a number"], ["--all", "--ttl", "15"]),
        (["--ttl is a number"], ["--all", "--ttl", "0m"]),
        (["--ttl is a number"], ["--all", "--ttl", "367d"]),
        (["--ttl is a number", "what may it read?"], ["--ttl", "soon"]),
        (["tasks is no list"], ["--task", ""]),
        (["argument 1 belongs to no flag", "what may it read?"], ["hunter2"]),
        (["it has more than"], ["--task=" + "a" * 1000, *(f"--task={n}{'b' * 990}" for n in range(8))]),
    ],
)
def test_mistakes(expected: list[str], argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every mistake is told, with exit code 2 and nothing on stdout."""
    assert 2 == main(["token", *argv])
    output = capsys.readouterr()
    _, *lines = output.err.splitlines()
    assert "" == output.out
    assert "hunter2" not in output.err
    assert len(expected) == len(lines)
    assert all(line.strip().startswith(start) for start, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize(
    ("expected", "variables"),
    [
        ("SIDECAR_AUTH_SECRETS is not set", {"SIDECAR_AUTH_SECRETS": ""}),
        ("SIDECAR_AUTH_SECRETS: the secret has less than 32 bytes", {"SIDECAR_AUTH_SECRETS": "hunter2"}),
        (
            "SIDECAR_AUTH_PUBLIC_KEY is set",
            {"SIDECAR_AUTH_PUBLIC_KEY": "tests/support/public_key.pem"},
        ),
    ],
)
def test_without_a_secret(
    expected: str,
    variables: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a secret, or where tokens are signed by somebody else, nothing is minted."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert 2 == main(["token", "--all"])
    output = capsys.readouterr()
    assert expected in output.err
    assert "hunter2" not in output.err
    assert "" == output.out


def test_other_settings_do_not_matter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a token is minted, the sidecar need not be able to run."""
    monkeypatch.setenv("SIDECAR_PORT", "abc")
    monkeypatch.setenv("SIDECAR_HOST", "0.0.0.0")  # noqa: S104  # nothing listens
    assert ALL == minted(capsys, "--all")[1].scope


def test_as_a_command() -> None:
    """The command prints one line, the token, to be put into a variable."""
    run = subprocess.run(
        [sys.executable, "-m", "sidecar", "token", "--all"], capture_output=True, text=True, check=True
    )
    assert "" == run.stderr
    assert ALL == Tokens(secret_keys([SECRET])).read(run.stdout.removesuffix("\n")).scope
