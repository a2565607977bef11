"""Messages of a broker: whatever one is, it is read or said to be unreadable, and no secret is shown."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.capture import Capture
from celery_plugin.contract import JSON, encode
from sidecar.messages import MESSAGE_MAX_BYTES, read_message

CAPTURE = Capture(("args", "kwargs"), 1024, ())
# No text of a test has it by chance, and none of its parts names a secret.
MARKER = "Zq7Xv9Jk2Wm"
SECRETS = ("password", "api_key", "token", "DB_PASSWORD", "authToken", "credit_card")


def protocol_2(**headers: Any) -> JSON:
    """A message with its facts in the headers, as Celery writes it by default."""
    facts = {"id": "a", "task": "tests.add", "argsrepr": "(1,)", "kwargsrepr": "{}", "retries": 0}
    return {
        "body": "gASVBgAAAAAAAABdlC4=",
        "content-encoding": "binary",
        "content-type": "application/x-python-serialize",
        "headers": facts | headers,
        "properties": {"priority": 0, "body_encoding": "base64"},
    }


def protocol_1(encoded: str | None = None, **body: Any) -> JSON:
    """A message with its facts in the body."""
    facts = {"id": "a", "task": "tests.add", "args": [1], "kwargs": {}, "retries": 0}
    text = base64.b64encode(json.dumps(facts | body).encode()).decode()
    return {
        "body": text if encoded is None else encoded,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": {"priority": 0, "body_encoding": "base64"},
    }


def read(message: JSON | bytes, capture: Capture = CAPTURE) -> JSON:
    """Read a message; what is shown of it can be sent as JSON that a browser reads."""
    shown = read_message(message if isinstance(message, bytes) else json.dumps(message).encode(), capture)
    assert shown == json.loads(encode(shown), parse_constant=pytest.fail)
    return shown


def test_protocol_2_does_not_open_the_body() -> None:
    """What stands in the headers is shown, also of a pickled or compressed body."""
    expected = {"task_id": "a", "task_name": "tests.add", "priority": 0, "attempt": 1, "eta": None}
    assert {**expected, "args": "(1,)", "kwargs": "{}"} == read(protocol_2())
    assert {**expected, "args": "(1,)", "kwargs": "{}"} == read(protocol_2(compression="application/x-gzip"))


def test_protocol_1() -> None:
    """What stands in the body is shown, with args and kwargs as Python writes them."""
    shown = read(protocol_1(args=["x", 2], kwargs={"size": None}, retries=2, eta="2030-01-01T00:00:00Z"))
    assert ("a", "tests.add", 3) == (shown["task_id"], shown["task_name"], shown["attempt"])
    assert ("('x', 2)", "{'size': None}") == (shown["args"], shown["kwargs"])
    assert 1893456000.0 == shown["eta"]


def test_a_shadow_is_the_name() -> None:
    """A task is called as its worker will call it."""
    assert "nightly" == read(protocol_2(shadow="nightly"))["task_name"]


def test_what_is_captured() -> None:
    """Settings decide what is shown, and how much."""
    none = read(protocol_2(), Capture((), 1024, ()))
    assert (None, None) == (none["args"], none["kwargs"])
    short = read(protocol_2(argsrepr="x" * 100), Capture(("args",), 10, ()))
    assert ("x" * 9 + "…", None) == (short["args"], short["kwargs"])
    named = read(protocol_2(kwargsrepr=f"{{'plate': '{MARKER}'}}"), Capture(("kwargs",), 1024, ("plate",)))
    assert "{'plate': '[redacted]'}" == named["kwargs"]


@pytest.mark.parametrize(
    ("expected", "eta"),
    [
        (1893456000.0, "2030-01-01T00:00:00+00:00"),
        (1893456000.5, "2030-01-01T01:00:00.500000+01:00"),
        (None, "soon"),
        (None, 5),
        (None, ""),
        (None, ["2030-01-01"]),
    ],
)
def test_eta(expected: float | None, eta: object) -> None:
    """An ETA is seconds since the epoch; what is no time is none."""
    assert expected == read(protocol_2(eta=eta))["eta"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("retries", 10**400), ("retries", "x"), ("retries", -1), ("retries", True), ("retries", None)],
)
def test_numbers(field: str, value: object) -> None:
    """A number that cannot be one leaves the rest readable."""
    assert ("a", 1) == ((shown := read(protocol_2(**{field: value})))["task_id"], shown["attempt"])


def test_texts_that_are_none() -> None:
    """What Celery writes as text is shown only where it is one."""
    shown = read(protocol_2(argsrepr=[1], kwargsrepr={"password": MARKER}, shadow=5, task=None))
    assert ("a", None, None, None) == tuple(
        shown[name] for name in ("task_id", "task_name", "args", "kwargs")
    )


UNREADABLE: list[tuple[str, bytes | JSON]] = [
    ("it is not JSON", b""),
    ("it is not JSON", b"message"),
    ("it is not JSON", b"\xff\xfe"),
    ("it is not JSON", b'{"headers":"\xff"}'),
    ("it is not JSON", b"[" * 100_000),
    ("it is not JSON", b'{"a":' * 100_000),
    ("it is not JSON", b"9" * 10_000),
    ("it is no message of Celery", b"[]"),
    ("it is no message of Celery", b"NaN"),
    ("it is no message of Celery", b"5"),
    ("it is no message of Celery", {}),
    ("its body is not JSON", {"headers": [], "properties": {}}),
    ("it is no message of Celery", {"headers": ["task"], "properties": {}}),
    ("it is no message of Celery", {"headers": {"task": "x"}, "properties": None}),
    ("it has no id", protocol_2(id=None)),
    ("it has no id", protocol_2(id=5)),
    ("it has no id", protocol_2(id=float("nan"))),
    ("it has no id", protocol_2(id="")),
    ("it has no id", protocol_2(id="x" * 1001)),
    ("it has no id", protocol_1(id=["a"])),
    ("it has no body", {**protocol_1(), "body": None}),
    ("it has no body", {**protocol_1(), "body": [1]}),
    ("its body is not base64", protocol_1(encoded="é")),
    ("its body is not base64", protocol_1(encoded="a")),
    ("it is not JSON", protocol_1(encoded="gASVBgAAAAAAAABdlC4=")),
    ("its body is not JSON", {**protocol_1(), "content-type": "application/x-python-serialize"}),
    ("its body is not JSON", {**protocol_1(), "content-type": "application/x-yaml"}),
    ("its body is not JSON", {**protocol_1(), "headers": {"compression": "application/x-gzip"}}),
    ("it is no message of Celery", protocol_1(encoded=base64.b64encode(b"[]").decode())),
    ("it is no message of Celery", protocol_1(encoded=base64.b64encode(b"{}").decode())),
    ("it is no message of Celery", protocol_1(args="x")),
    ("it is no message of Celery", protocol_1(kwargs=[1])),
    ("it is too long to be read", protocol_2(argsrepr="x" * MESSAGE_MAX_BYTES)),
]


@pytest.mark.parametrize(("expected", "message"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_unreadable(expected: str, message: bytes | JSON) -> None:
    """What is no task is shown without an id and says why."""
    shown = read(message)
    assert (None, None, expected) == (shown["task_id"], shown["args"], shown["unreadable"])


def test_nothing_is_unpickled() -> None:
    """A pickle that would raise when it is loaded is not loaded."""
    pickled = base64.b64encode(b"cbuiltins\nexit\n(S'loaded'\ntR.").decode()
    for headers in ({}, {"task": "x", "id": "a"}):
        message = {**protocol_1(encoded=pickled), "headers": headers}
        read({**message, "content-type": "application/x-python-serialize"})
        read(message)


words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
# Without a name of a secret around it what is left and right of a value is anything.
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    (
        "body",
        "headers",
        "properties",
        "content-type",
        "id",
        "task",
        "argsrepr",
        "kwargsrepr",
        "eta",
        "retries",
    )
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | members,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members | st.text(), inner, max_size=6),
    max_leaves=20,
)


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_message(message: bytes) -> None:
    """Whatever somebody puts into a list is read or said to be unreadable."""
    shown = read(message)
    assert (shown["task_id"] is None) == ("unreadable" in shown)


@given(st.dictionaries(members, any_json), st.dictionaries(members, any_json), st.booleans())
def test_any_fields(headers: JSON, properties: JSON, first: bool) -> None:
    """Whatever stands in a message that is nearly one of Celery's, it is no fault."""
    message = protocol_1(**headers) if first else protocol_2(**headers)
    read({**message, "properties": message["properties"] | properties})


@given(plain, st.dictionaries(words, plain, max_size=3), st.sampled_from(SECRETS), st.integers(1, 2))
def test_no_secret_is_shown(before: Any, others: JSON, name: str, protocol: int) -> None:
    """The value under a secret's name is shown of neither protocol, whatever stands around it."""
    args, kwargs = (before, {name: MARKER}), {**others, name: [MARKER, {"x": MARKER}]}
    if protocol == 1:
        message = protocol_1(args=list(args), kwargs=kwargs)
    else:
        message = protocol_2(argsrepr=repr(args), kwargsrepr=repr(kwargs))
    assert MARKER not in encode(read(message))
