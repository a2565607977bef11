"""A quiet worker tells at once, a busy one in batches."""

from __future__ import annotations

import pytest

from celery_plugin.pace import LONGEST_REST_SECONDS, REST_SECONDS, Pace


def rests(rate: float, seconds: float = 3.0) -> list[float]:
    """The rests of a writer to whom so many events a second come evenly."""
    pace, now, told, taken = Pace(), 100.0, 0, []
    while now < 100 + seconds:
        come = int((now - 100) * rate)
        taken.append(pace.rest(come - told, now))
        told = come
        now += taken[-1] + 0.001
    return taken


@pytest.mark.parametrize("rate", [0, 20, 150])
def test_quiet(rate: float) -> None:
    """Few events are told as they come."""
    assert {REST_SECONDS} == set(rests(rate))


@pytest.mark.parametrize(("rate", "expected"), [(600, 0.04), (1500, 0.1), (3000, 0.15), (100_000, 0.15)])
def test_busy(rate: float, expected: float) -> None:
    """The more come, the longer it rests, and it stays at that; never longer than a viewer would notice."""
    settled = rests(rate)[-10:]
    assert settled == pytest.approx([expected] * 10, rel=0.35)
    assert max(settled) <= LONGEST_REST_SECONDS


def test_a_burst() -> None:
    """Twenty tasks at once make it no busy worker for longer than a moment."""
    pace = Pace()
    assert pace.rest(60, 100.0) <= 0.02
    assert REST_SECONDS == pace.rest(0, 100.02)
