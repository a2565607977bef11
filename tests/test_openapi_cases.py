"""Whatever the document lets one ask, and whatever it does not, is answered as it says: no fault, no hang."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from sidecar.http_protocol import HEAD_MAX_BYTES
from sidecar.openapi import make_document
from sidecar.operations import OPERATIONS, Operation
from tests.support.conforming import Document
from tests.support.guarded import Client, bearer, serving
from tests.support.sse import Parser
from tests.support.tokens import SECRET, token

# Several times what the slowest of these takes: beyond it, it hangs.
SECONDS = 5.0
CASES = int(os.environ.get("FUZZ_CASES", "25"))
CREDENTIALS = (None, token("*", ["args"], ttl=36_000), token({"tasks": ["a"]}, ttl=36_000), "x.y.z")
# A stream is read this far: what comes then may take a while.
SEEN = ("live", "end", "unauthorized", "overloaded")
DOCUMENT = Document(make_document())

load_all_checks()
# Each is one answer to one request. Who may ask is another test's; and a cursor is good or not, as is an id
# of the path, which no schema can tell.
HELD = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT.content)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A sidecar with two tasks, that takes tokens and any number of streams."""
    with serving(auth_secrets=SECRET, max_streams_per_address="9999") as client:
        yield client


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Connections to it."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_request(
    client: Client, session: requests.Session, operation: Operation, data: st.DataObject
) -> None:
    """Right or wrong, a request has an answer that its operation declares, in a form that it declares."""
    mode = data.draw(st.sampled_from(list(GenerationMode)))
    case = data.draw(SCHEMA[operation.path][operation.method].as_strategy(mode))
    credential = data.draw(st.sampled_from(CREDENTIALS))
    try:
        sent = send(case, client.sidecar.url, session, credential)
    except requests.ConnectionError as error:
        # Who is still sending when it is refused may see the end of the connection before the answer.
        if error.request is None or len(str(error.request.url)) <= HEAD_MAX_BYTES:
            raise
        return
    with sent as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            check_stream(
                answer, resumes="last_event_id" in str(case.query) or "Last-Event-ID" in case.headers
            )
        else:
            case.validate_response(answer, checks=HELD)


def send(case: Case, url: str, session: requests.Session, credential: str | None) -> requests.Response:
    """Ask; an answer that does not begin or go on in time is a failure."""
    request: dict[str, Any] = case.as_transport_kwargs(base_url=url)
    headers = {**request.pop("headers"), **({} if credential is None else bearer(credential))}
    return session.request(**request, headers=headers, stream=True, timeout=SECONDS, allow_redirects=False)


def check_stream(answer: requests.Response, *, resumes: bool) -> None:
    """Hold the beginning of a stream against the document; one that resumes may have nothing to tell."""
    parser = Parser()
    for chunk in answer.iter_content(None):
        for event in parser.feed(chunk):
            DOCUMENT.check_event(event)
            if event.event in SEEN:
                return
        if resumes and parser.retry_ms:
            return
