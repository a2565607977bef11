"""The pump rests where there is much to do, and only there."""

from __future__ import annotations

import itertools

import pytest

from sidecar.rests import MIN_SECONDS, Rests


def rests(took: float, every: float, count: int = 100) -> list[float]:
    """What is rested after rounds that take so long and begin so often; no clock runs."""
    rests, ends = Rests(0.0), itertools.count(1)
    return [rests.after(took, next(ends) * every) for _ in range(count)]


def test_a_fraction_of_the_time() -> None:
    """1,000 viewers are told 20 events a second without a rest: the next event is told at once."""
    assert [0.0] * 100 == rests(took=0.010, every=0.050)


def test_much_of_the_time() -> None:
    """At 200 events a second there are rests about as long as the rounds, so that more goes in one."""
    taken = rests(took=0.010, every=0.012)
    assert 0.0 == taken[0]
    assert pytest.approx([0.018] * 90) == taken[10:]


def test_rounds_that_take_no_time() -> None:
    """A round that is shorter than what a timer can wait has none, however many there are."""
    assert [0.0] * 100 == rests(took=MIN_SECONDS / 2, every=MIN_SECONDS / 2)
