"""No address can keep the sidecar busy with questions, and none can make it remember too much."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rates import BURST_SECONDS, ROUNDING_SECONDS, Rates
from tests.support.guarded import EVENTS, STATUS, Client, serving


@pytest.fixture
def behind_proxy() -> Iterator[Client]:
    """A sidecar behind a proxy on this machine."""
    with serving(rate_limit="0.001", trusted_proxies="127.0.0.1") as client:
        yield client


def taken(rates: Rates, address: str, now: float, times: int) -> int:
    """Ask several times at one moment; return how often it was allowed."""
    return sum(rates.take(address, now) == 0 for _ in range(times))


def test_a_burst_and_then_the_rate() -> None:
    """What has not been asked for two seconds may come at once; after that so many a second."""
    rates = Rates(10)
    assert 10 * BURST_SECONDS == taken(rates, "a", 100.0, 50)
    assert 10 == taken(rates, "a", 101.0, 50)
    assert 10 * BURST_SECONDS == taken(rates, "a", 200.0, 50)


@given(st.floats(0.001, 1000), st.floats(0, 1e9))
def test_the_first_is_always_allowed(rate: float, now: float) -> None:
    """A full bucket gives all that is in it, whatever the clock shows."""
    assert max(1, int(rate * BURST_SECONDS)) <= taken(Rates(rate), "a", now, int(rate * BURST_SECONDS) + 2)


def test_each_address_has_its_own() -> None:
    """One that asks too much takes nothing from another."""
    rates = Rates(1)
    taken(rates, "a", 0.0, 50)
    assert 2 == taken(rates, "b", 0.0, 50)


def test_the_wait_is_right() -> None:
    """Who comes back after the time that was told is let in, and who comes a little earlier is not."""
    rates = Rates(0.5)
    assert 1 == taken(rates, "a", 0.0, 5)
    wait = rates.take("a", 0.5)
    assert wait == pytest.approx(1.5)
    assert rates.take("a", 0.5 + wait - 0.01) > 0
    assert 0 == rates.take("a", 0.5 + wait)


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=60),
)
def test_never_more_than_allowed(rate: float, steps: list[tuple[str, float]]) -> None:
    """Whoever asks whenever: within any time an address gets a burst and the rate, and no more."""
    rates, now, allowed = Rates(rate), 0.0, {"a": 0, "b": 0, "c": 0}
    for address, pause in steps:
        now += pause
        allowed[address] += rates.take(address, now) == 0
        assert allowed[address] <= max(1.0, rate * BURST_SECONDS) + rate * (now + ROUNDING_SECONDS) + 1e-6


def test_the_table_is_bounded() -> None:
    """However many addresses ask, few are remembered: those that asked last."""
    rates = Rates(1, addresses_max=10)
    for number in range(1000):
        rates.take(str(number), 0.0)
    assert 10 == len(rates)
    assert 1 == taken(rates, "999", 0.0, 5)
    assert 2 == taken(rates, "5", 0.0, 5)


def test_over_http() -> None:
    """An address that asks too often gets 429 and when to come back; streams and health are left alone."""
    with serving(rate_limit="0.001") as client:
        assert 200 == client.get(STATUS).status_code
        answer = client.get(STATUS)
        assert (429, "too_many_requests") == (answer.status_code, answer.json()["code"])
        assert "application/problem+json" == answer.headers["content-type"]
        assert 900 <= int(answer.headers["retry-after"]) <= 1000
        for path in (EVENTS, "/livez", "/"):
            assert {429} != {client.code("GET", path)[0] for _ in range(5)}


def test_no_limit() -> None:
    """With 0 nothing is counted."""
    with serving(rate_limit="0") as client:
        assert {200} == {client.get(STATUS).status_code for _ in range(20)}


@pytest.mark.parametrize(
    ("expected", "one", "other"),
    [
        (429, "2001:db8::1", "2001:db8::ffff:1"),
        (200, "2001:db8::1", "2001:db8:0:1::1"),
        (200, "10.0.0.1", "10.0.0.2"),
        (200, "::ffff:10.0.0.3", "::ffff:10.0.0.4"),
        (429, "unknown", "unknown"),
    ],
)
def test_addresses(behind_proxy: Client, expected: int, one: str, other: str) -> None:
    """Each client of a trusted proxy has its own rate; an IPv6 host has a network, which counts as one."""
    assert 200 == behind_proxy.get(STATUS, headers={"X-Forwarded-For": one}).status_code
    assert expected == behind_proxy.get(STATUS, headers={"X-Forwarded-For": other}).status_code


def test_nobody_is_believed_unasked() -> None:
    """Without a trusted proxy a client is itself, whatever it says."""
    with serving(rate_limit="0.001") as client:
        assert 200 == client.get(STATUS, headers={"X-Forwarded-For": "10.0.0.1"}).status_code
        assert 429 == client.get(STATUS, headers={"X-Forwarded-For": "10.0.0.2"}).status_code
