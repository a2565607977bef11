"""`celery-sidecar watch`: in a real terminal, in a pipe, and while sidecar and Redis come and go."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from deploy.demo.child import environment
from deploy.demo.redis_server import RedisServer
from sidecar.terminal.follow import Message
from sidecar.terminal.plain import plain_lines
from sidecar.terminal.text import clock
from tests.support.batches import Sender, worker_step
from tests.support.deadline import eventually
from tests.support.guarded import serving
from tests.support.processes import Process
from tests.support.pseudo_terminal import Terminal
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartProcess, StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.tokens import SECRET, token
from tests.support.writing import life, task, worker

# What the view itself sends: its screen, its cursor, places, clearing, colours.
OUR_OWN = re.compile(rb"\x1b\[(?:\?(?:1049|25)[hl]|\d+;1H|2[KJ]|[0-9;]*m)")


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "sidecar", "watch", *arguments]


def terminal(url: str, *arguments: str, columns: int = 120, lines: int = 30, **variables: str) -> Terminal:
    """Watch in a terminal."""
    return Terminal(command(*arguments), environment(SIDECAR_URL=url, **variables), columns, lines)


def lines_of(process: Process, kind: str) -> list[Any]:
    """The JSON lines of a type."""
    told = [json.loads(line) for line in process.output.splitlines()]
    return [each for each in told if each["type"] == kind]


def test_real_tasks(
    celery_app: Celery,
    gate: Gate,
    redis_server: RedisServer,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """A task of a real worker is shown with its progress and a clock that ticks, and then as completed."""
    worker = start_worker()
    task_id = celery_app.send_task("tests.progress", ("Halfway there", str(gate))).id
    with terminal(start_sidecar(redis_server.url).url, columns=160) as view:
        view.until("● live", "▶ active", "tests.progress", "█████░░░░░  50 %", "Halfway there", task_id[:8])
        view.until("total 1", worker.hostname[:8], "1/2", "prefork")
        first = view.until(" s ")
        eventually(lambda: view.text != first, what="the clock ticks")
        gate.open()
        view.until("✓ completed", "total 0")
        # It leaves after a while.
        view.until(without="✓ completed")
        view.type("q")
        assert 0 == view.wait()


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (0, lambda view: view.type("q")),
        (0, lambda view: view.type("\x03")),
        (0, lambda view: view.signal(signal.SIGINT)),
        (128 + signal.SIGTERM, lambda view: view.signal(signal.SIGTERM)),
    ],
    ids=["q", "ctrl-c", "SIGINT", "SIGTERM"],
)
def test_the_terminal_is_given_back(sidecar: Sidecar, code: int, end: Callable[[Terminal], None]) -> None:
    """However it ends, keys, cursor and screen are as they were, and nothing is said."""
    with terminal(sidecar.url) as view:
        view.until("● live")
        assert view.settings != view.current_settings()
        end(view)
        assert code == view.wait()
        assert view.settings == view.current_settings()
        assert view.written.endswith(b"\x1b[0m\x1b[?25h\x1b[?1049l")


def test_suspended_and_resumed(sidecar: Sidecar) -> None:
    """Ctrl-Z gives the terminal back, and what brings the view to the front draws it anew."""
    with terminal(sidecar.url) as view:
        view.until("● live")
        view.type("\x1a")
        eventually(lambda: view.settings == view.current_settings(), what="the terminal is given back")
        # Settings are seen at once, what was written only when it has been read.
        eventually(lambda: view.written.endswith(b"\x1b[?1049l"), what="so is the screen")
        view.screen.reset()
        view.signal(signal.SIGCONT)
        view.until("● live", "q quits")
        view.type("q")
        assert 0 == view.wait()


HOSTILE = "x\x1b]0;owned\x07\x1b[2J\x9b31m\x08\r\n\u202e\x7f"


def test_nothing_drives_the_terminal(sender: Sender, sidecar: Sidecar) -> None:
    """Names, messages and workers that hold escapes are shown with these written out."""
    sender.send(worker("two", worker=HOSTILE, queues=[HOSTILE]))
    sender.send(task("a", "active", task_name=HOSTILE, message=HOSTILE, worker=HOSTILE, queue=HOSTILE))
    with terminal(sidecar.url, columns=200) as view:
        view.until("● live", "x\\x1b]0;owned\\x07", "▶ active")
        view.type("q")
        view.wait()
        ours = OUR_OWN.sub(b"", view.written)
    # The terminal itself ends a line that the program ends.
    assert [] == [byte for byte in ours if byte < 0x20 or byte == 0x7F]
    assert not re.search("[\x80-\x9f\u202e]", ours.decode())


def test_a_pipe_is_clean_too(sender: Sender, sidecar: Sidecar, start_process: StartProcess) -> None:
    """Nor does a line hold anything that drives the terminal to which the pipe leads."""
    sender.send(task("a", "active", task_name=HOSTILE, message=HOSTILE, worker=HOSTILE, queue=HOSTILE))
    for form in ("--plain", "--json"):
        process = start_process(command(form, "--url", sidecar.url))
        process.wait_for_line("owned")
        process.wait_for_line("figures|queue_status")
        assert process.output.replace("\n", "").isprintable()
        assert process.stop(number=signal.SIGINT) == 0


def test_a_line_has_the_time_of_what_it_tells() -> None:
    """Progress comes in the event of the start, with a time of its own."""
    record = {"status": "active", "timestamp": 1_700_000_000.0, "task_id": "a", "message": "step 1"}
    later = record | {"progress": {"message": "step 1", "updated_at": 1_700_000_060.0}}
    began, goes_on = plain_lines([Message("task_status", record), Message("task_status", later)])
    assert f"{clock(1_700_000_000.0)} active" == began[:15]
    assert f"{clock(1_700_000_060.0)} active" == goes_on[:15]


def test_the_size_is_followed(sender: Sender, sidecar: Sidecar) -> None:
    """Where there is little room columns and rows are given up, and how many there are is said."""
    sender.send(*(task(f"t{number}", "active", started_at=time.time()) for number in range(40)))
    with terminal(sidecar.url) as view:
        view.until("● live", "MESSAGE", "… and ", " more")
        view.resize(60, 12)
        view.until("TASK", " more", "q quits", without="MESSAGE")
        assert all(len(line) <= 60 for line in view.shown)
        view.resize(20, 4)
        view.until("q quits", without="TASK")
        view.resize(160, 60)
        text = view.until("MESSAGE", "q quits", without=" more")
        assert 40 == text.count("▶ active")


def test_a_sidecar_that_goes_and_comes(sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar) -> None:
    """While it is away that is said, with how old everything is; then what was missed is shown."""
    sender.send(task("a", "active", started_at=time.time()))
    with terminal(sidecar.url) as view:
        view.until("● live", "total 1")
        sidecar.kill()
        view.until("○ reconnecting in", "what is shown is", "total 1", without="● live")
        sender.send(task("a", "completed"), task("b", "active", task_name="tests.missed"))
        start_sidecar(port=sidecar.port)
        view.until("● live", "tests.missed", without="what is shown is")
        view.type("q")
        assert 0 == view.wait()


def test_it_comes_back_with_the_last_id(
    sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar, start_process: StartProcess
) -> None:
    """Over a restart of the sidecar each event is told once, without a new snapshot."""
    process = start_process(command("--json", "--url", sidecar.url))
    process.wait_for_line('"live"')
    sender.send(*life("a"))
    process.wait_for_line('"completed"')
    sidecar.kill()
    process.wait_for_line('"reconnecting"')
    sender.send(*life("b"))
    start_sidecar(port=sidecar.port)
    eventually(lambda: 6 <= len(lines_of(process, "task_status")))
    sender.send(*life("c"))
    eventually(lambda: 9 <= len(lines_of(process, "task_status")))
    told = [(each["task_id"], each["status"]) for each in lines_of(process, "task_status")]
    assert [(each, status) for each in "abc" for status in ("reserved", "active", "completed")] == told
    assert [] == lines_of(process, "reset")
    assert 1 == len(lines_of(process, "snapshot"))
    assert {"connecting", "open", "reconnecting"} == {
        each["state"] for each in lines_of(process, "connection")
    }


def test_redis_away(
    sender: Sender, sidecar: Sidecar, redis_server: RedisServer, start_process: StartProcess
) -> None:
    """That Redis cannot be read is said, clocks stand still, and no figure passes for fresh."""
    sender.send(task("a", "active", started_at=time.time() - 3600))
    plain = start_process(command("--plain", "--url", sidecar.url))
    plain.wait_for_line("figures")
    with terminal(sidecar.url) as view:
        view.until("● live", "1:00:")
        redis_server.pause()
        view.until("○ Redis unreachable since", "what is shown is", without="● live")
        clock = re.findall(r"1:00:\d\d", view.text)
        view.until("what is shown is 2.")
        assert clock == re.findall(r"1:00:\d\d", view.text)
        redis_server.resume()
        view.until("● live", without="what is shown is")
    plain.wait_for_line("stale +Redis cannot be read")
    plain.wait_for_line("fresh +Redis can be read")


def test_it_waits_for_a_sidecar(
    free_port: Callable[[], int], start_sidecar: StartSidecar, sender: Sender
) -> None:
    """Begun before the sidecar, it says that nobody is there, and goes on when somebody is."""
    port = free_port()
    with terminal(f"http://127.0.0.1:{port}") as view:
        view.until("○ reconnecting in", "Connection refused")
        start_sidecar(port=port)
        view.until("● live")


def test_filters(sender: Sender, sidecar: Sidecar, start_process: StartProcess) -> None:
    """With a filter only such tasks are told, and the figures still are."""
    process = start_process(command("--json", "--name", "wanted.*", "--url", sidecar.url))
    process.wait_for_line("queue_status")
    sender.send(task("a", "active", task_name="other"), task("b", "active", task_name="wanted.one"))
    process.wait_for_line('"active_tasks":2')
    process.wait_for_line('"wanted.one"')
    assert ["b"] == [each["task_id"] for each in lines_of(process, "task_status")]


def test_a_reader_that_leaves(sidecar: Sidecar, start_process: StartProcess, sender: Sender) -> None:
    """`watch | head` ends without a word when head has what it wants."""
    words = " ".join(command("--plain", "--url", sidecar.url))
    process = start_process(["bash", "-c", f"set -o pipefail; {words} | head -2"])
    process.wait_for_line("open")
    sender.send(*life("a"))
    eventually(lambda: not sender.send(worker_step("one", n=time.time())) or not process.running)
    assert 0 == process.wait()
    assert 2 == process.line_count


@pytest.mark.parametrize("form", ["--plain", "--json"])
def test_a_token_that_is_not_taken(start_process: StartProcess, form: str) -> None:
    """A refusal is final: it is told with its reason, and no token is shown anywhere."""
    with serving(auth_secrets=SECRET) as client:
        wrong = token(key="another_secret_of_the_tests_of_32_bytes")
        env = environment(SIDECAR_URL=client.sidecar.url, SIDECAR_TOKEN=wrong)
        process = start_process(command(form), env=env)
        assert 1 == process.wait()
        assert "401 Not authenticated" in process.output
        assert wrong not in process.output
        assert wrong not in client.sidecar.output


def test_a_token_that_ends(tmp_path: Any) -> None:
    """A new token in the file lets the view go on when the old one has expired; without one it ends."""
    file = tmp_path / "token"
    with serving(auth_secrets=SECRET) as client:
        file.write_text(token(ttl=3))
        with terminal(client.sidecar.url, "--token-file", str(file)) as view:
            view.until("● live")
            file.write_text(token(ttl=6))
            view.until("the token has expired")
            view.until("● live")
            assert 1 == view.wait()
            assert b"401 Not authenticated" in view.written
            assert view.settings == view.current_settings()
