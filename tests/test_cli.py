"""The command line: help, version, and mistakes that end with exit code 2 and no traceback."""

import os
import subprocess
import sys

import pytest

from sidecar.cli import main
from sidecar.settings import SETTINGS


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables of whoever runs the tests away."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is printed, with exit code 2."""
    assert 2 == main([])
    assert "serve" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_and_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help and version go to stdout with exit code 0."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert 0 == ended.value.code
    assert "celery-sidecar" in capsys.readouterr().out


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """``serve --help`` names every flag and every variable."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert [] == [setting for setting in SETTINGS if setting.flag not in text or setting.variable not in text]


def test_all_mistakes_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes in flags and variables, unknown flags and likely typos are reported together, one a line."""
    monkeypatch.setenv("SIDECAR_PORT", "abc")
    monkeypatch.setenv("SIDECAR_REDIS_URL", "nonsense")
    monkeypatch.setenv("SIDECAR_PREFX", "x")
    assert 2 == main(["serve", "--log-levl", "info", "--host", "a b", "left over", "--log-format"])
    first, *rest = capsys.readouterr().err.splitlines()
    assert "celery-sidecar: 6 mistakes in the settings" == first
    assert [
        "  '--log-levl' is not a flag; is --log-level meant?",
        "  'left over' belongs to no flag; see celery-sidecar serve --help",
        "  --host is 'a b'",
        "  SIDECAR_PORT is 'abc'",
        "  SIDECAR_REDIS_URL is 'nonsense'",
        "  --log-format is ''",
        "  SIDECAR_PREFX is not a setting; is SIDECAR_PREFIX meant?",
    ] == [line.split(": ")[0] for line in rest]


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--redis-url", "redis://:hunter2@host:port"],
        ["serve", "--redis-url=http://user:hunter2@host"],
        ["serve", "--broker-url", "redis://host/0?password=hunter2&db=x"],
        ["serve", "--redsi-url=redis://:hunter2@host"],
        ["serve", "--redsi-url", "redis://:hunter2@host"],
        ["serve", "redis://:hunter2@host"],
        ["redis://:hunter2@host"],
    ],
)
def test_no_password_is_printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No mistake on the command line shows a password."""
    try:
        code = main(argv)
    except SystemExit as ended:
        code = ended.code
    assert 2 == code
    assert "hunter2" not in capsys.readouterr().err


def test_as_a_module() -> None:
    """``python -m sidecar`` is the same command: a mistake ends it with 2 and without a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve", "--port", "abc"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, "") == (run.returncode, run.stdout)
    assert [
        "celery-sidecar: 1 mistake in the settings",
        "  --port is 'abc': a port is a whole number from 1 to 65535, or 0 for any free one",
    ] == run.stderr.splitlines()


def test_a_mistake_is_told_fast() -> None:
    """Reading the settings loads neither the server nor Redis nor Celery."""
    program = """
import sys
from sidecar.cli import main
main(["serve", "--port", "abc"])
print(sorted({"celery", "kombu", "redis", "starlette", "uvicorn", "anyio"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]\n" == run.stdout
