"""Which sidecar is asked, and with what token."""

import argparse
from pathlib import Path

import pytest

from sidecar.settings import BadSettings, typos
from sidecar.terminal.target import NoToken, Target, add_target_flags, read_target

TOKEN = "c2VjcmV0"


def target(*argv: str, **environ: str) -> Target:
    """Read it as a command does."""
    parser = argparse.ArgumentParser()
    add_target_flags(parser)
    return read_target(parser.parse_args(argv), environ)


def test_default() -> None:
    """Nothing said is the sidecar of this machine, without a token."""
    assert "http://127.0.0.1:8000" == target().url
    assert {} == target().authorization()


def test_a_flag_beats_its_variable() -> None:
    """Flags win, also a file over a token in the environment."""
    assert "https://b:1/x" == target("--url", "https://b:1/x/", SIDECAR_URL="http://a").url
    assert "http://a" == target(SIDECAR_URL="http://a").url
    assert {"Authorization": "Bearer f"} == target("--token", "f", SIDECAR_TOKEN=TOKEN).authorization()
    assert "http://[::1]:80" == target("--url", "http://[::1]:80").url


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    """A token that was replaced in its file is the one that is sent next."""
    file = tmp_path / "token"
    file.write_text("one\n")
    found = target("--token-file", str(file), SIDECAR_TOKEN=TOKEN)
    assert {"Authorization": "Bearer one"} == found.authorization()
    file.write_text("two")
    assert {"Authorization": "Bearer two"} == found.authorization()
    file.write_text("two\r\nX-Forged: yes")
    with pytest.raises(NoToken):
        found.authorization()
    file.unlink()
    with pytest.raises(NoToken, match="No such file"):
        found.authorization()


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:99999",
        "http://a?x=1",
        "http://a/#x",
        "http://a b",
        "http://a/\r\nx",
        f"http://user:{TOKEN}@a",
    ],
)
def test_a_wrong_url(url: str) -> None:
    """What is no address of a sidecar is told as a mistake, without a password."""
    with pytest.raises(BadSettings) as raised:
        target("--url", url)
    assert 1 == len(raised.value.mistakes)
    assert TOKEN not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_wrong_token() -> None:
    """What could begin another header is no token, and is not repeated."""
    with pytest.raises(BadSettings) as raised:
        target(SIDECAR_TOKEN=f"{TOKEN}\r\nX: y")
    assert TOKEN not in str(raised.value)


def test_the_token_is_in_no_text() -> None:
    """Whoever prints the target prints no token."""
    assert TOKEN not in repr(target(SIDECAR_TOKEN=TOKEN))


def test_the_variables_are_no_typos() -> None:
    """Beside `serve` they are known as somebody else's."""
    assert [] == typos({"SIDECAR_URL": "", "SIDECAR_TOKEN": "", "SIDECAR_TOKEN_FILE": ""})
