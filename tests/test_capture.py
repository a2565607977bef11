"""The promise that what is shown of a task's values is decided in its worker; the rest never leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from celery_plugin.contract import EXTRA_FIELDS, RECORD_MAX_BYTES
from tests.support.site import Site, open_site

MARKER = "hush-7f3a"
StartSite = Callable[..., Site]


@pytest.fixture(scope="module")
def sites() -> Iterator[StartSite]:
    """A site for each way to set the plugin, with one worker and a Redis for the state alone."""
    opened: dict[tuple[tuple[str, str], ...], Site] = {}
    with ExitStack() as stack:

        def open_for(**env: str) -> Site:
            key = tuple(sorted(env.items()))
            if key not in opened:
                opened[key] = stack.enter_context(open_site(own_state=True))
                opened[key].start(pool="solo", env=env)
            return opened[key]

        yield open_for


def _shown(site: Site, name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    record = site.ended(site.call(name, *arguments, **options))
    return {field: record[field] for field in EXTRA_FIELDS if field in record}


def test_by_default_args_and_kwargs(sites: StartSite) -> None:
    """Not the result; nor the traceback, though the exception always."""
    site = sites()
    assert {"args": "(1, 'ü')", "kwargs": "{'n': 2}"} == _shown(site, "echo", 1, "ü", kwargs={"n": 2})
    task_id = site.call("fail", "no luck")
    record = site.ended(task_id)
    assert {"args": "('no luck',)", "kwargs": "{}"} == {f: record[f] for f in EXTRA_FIELDS if f in record}
    assert "ValueError('no luck')" == record["exception"]


def test_none(sites: StartSite) -> None:
    """Names, states and exceptions, but no values."""
    site = sites(SIDECAR_CAPTURE="none")
    assert {} == _shown(site, "echo", MARKER, kwargs={"n": MARKER})
    assert MARKER not in _everything(site)


def test_result_and_traceback_on_request(sites: StartSite) -> None:
    """All of it, for who wants it."""
    site = sites(SIDECAR_CAPTURE="args,kwargs,result,traceback")
    assert {"args": "(1, 2)", "kwargs": "{}", "result": "3"} == _shown(site, "add", 1, 2)
    shown = _shown(site, "fail", "no luck")
    assert {"args", "kwargs", "traceback"} == set(shown)
    assert shown["traceback"].rstrip().endswith("ValueError: no luck")
    assert "result" not in _shown(site, "fail", "no luck")


SECRETS = [
    pytest.param("echo", (), {"password": MARKER}, id="kwargs"),
    pytest.param("echo", ({"user": {"api_key": MARKER}},), {}, id="nested"),
    pytest.param("echo", ([{"Authorization": f"Bearer {MARKER}"}],), {}, id="headers"),
    pytest.param("echo", (f"redis://:{MARKER}@host/0",), {}, id="url"),
    pytest.param("echo", ({"shoe_size": MARKER},), {}, id="a name of one's own"),
    pytest.param("echo", ({"card": MARKER, "long": "x" * 2000},), {}, id="cut by the producer"),
    pytest.param("echo", ("x" * 100, {"token": MARKER * 200}), {}, id="cut within the secret"),
    pytest.param("fail", (f"password={MARKER}",), {}, id="exception"),
    pytest.param("fail", (f"{{'token': '{MARKER}'}}",), {}, id="a structure in an exception"),
]


@pytest.mark.parametrize(("name", "arguments", "keywords"), SECRETS)
def test_secrets_never_reach_redis(
    sites: StartSite, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """In no key and in no entry of the log, though args, kwargs, results and tracebacks are shown."""
    site = sites(SIDECAR_CAPTURE="args,kwargs,result,traceback", SIDECAR_REDACT="shoe*")
    record = site.ended(site.call(name, *arguments, kwargs=keywords))
    assert "[redacted]" in str(record)
    assert MARKER not in _everything(site)


def test_why_an_attempt_is_made_again(sites: StartSite) -> None:
    """The exception for which a retry was asked, and not the retry itself."""
    site = sites()
    task_id = site.call("retry_once", kwargs={"countdown": 0})
    assert None is site.ended(task_id).get("exception")
    of_task = [event for event in site.shown.events if event.get("task_id") == task_id]
    (told,) = (event for event in of_task if event["status"] == "retrying")
    assert "ValueError('the first attempt fails')" == told["exception"]


def test_values_are_cut(sites: StartSite) -> None:
    """To the length that is set, each; the end of a traceback is what is kept."""
    site = sites(SIDECAR_CAPTURE="args,kwargs,result,traceback", SIDECAR_CAPTURE_MAX_CHARS="60")
    shown = _shown(site, "echo", "a" * 500, kwargs={"n": "b" * 500})
    assert {"args", "kwargs", "result"} == set(shown)
    assert [60, 60, 60] == [len(shown[field]) for field in ("args", "kwargs", "result")]
    assert all(text.endswith("…") for text in shown.values())
    assert _shown(site, "fail", "no luck")["traceback"].rstrip().endswith("ValueError: no luck")


def test_a_record_is_at_most_a_kilobyte(sites: StartSite) -> None:
    """However much there is to be shown; names, states and times are whole."""
    site = sites(SIDECAR_CAPTURE="args,kwargs,result,traceback", SIDECAR_CAPTURE_MAX_CHARS="100000")
    for name, arguments in (("echo", ("ü" * 5000, "\n" * 5000)), ("fail", ("\\" * 5000,))):
        task_id = site.call(name, *arguments, kwargs={} if name == "fail" else {"k": "🎉" * 5000})
        record = site.ended(task_id)
        assert f"tests.{name}" == record["task_name"]
        client: Any = site.client
        assert client.hstrlen(site.shown.keys.finished_tasks, task_id) <= RECORD_MAX_BYTES
    for _, event, extra in site.shown.entries:
        assert len(event) + len(extra) <= RECORD_MAX_BYTES + len(b"{}")


def _everything(site: Site) -> str:
    """All that the state's Redis holds, in one text."""
    client: Any = site.client
    texts = []
    for key in client.scan_iter("*"):
        kind = client.type(key).decode()
        read = {"hash": client.hgetall, "stream": client.xrange, "string": client.get}
        texts.append(f"{key!r} {read[kind](key) if kind in read else client.zrange(key, 0, -1)!r}")
    return "\n".join(texts)
