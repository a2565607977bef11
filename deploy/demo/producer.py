"""The part of the application that enqueues: a gentle stream of tasks that a human can follow."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from deploy.demo.app import charge_card, fetch_feed, generate_report, remind, resize_image, send_email

# Two processes have two seconds of work a second to give; this asks for about two thirds of it,
# so that a queue grows with a burst and empties again while one watches.
_PAUSE_SECONDS: Final = (0.4, 1.0)
_BURST: Final = 10
_BURST_EVERY: Final = 30

_USERS: Final = ("ada", "grace", "alan", "edsger", "barbara")


def _send_email() -> None:
    send_email.delay(f"{random.choice(_USERS)}@example.com", template=random.choice(("welcome", "invoice")))


def _resize_image() -> None:
    resize_image.delay(f"/uploads/{random.randrange(10_000):04}.jpg", width=random.choice((320, 800, 1600)))


def _generate_report() -> None:
    generate_report.delay(random.randrange(10_000), personas=random.randint(2, 5))


def _charge_card() -> None:
    charge_card.delay(random.randrange(10_000), round(random.uniform(5, 500), 2))


def _fetch_feed() -> None:
    fetch_feed.delay(f"https://example.com/{random.choice(_USERS)}/feed.xml")


def _remind() -> None:
    remind.apply_async((random.choice(_USERS),), countdown=random.randint(5, 15))


# How often each stands in the deck: a shuffled deck brings every kind within half a minute, which
# throwing a die for each task would not.
_DECK: Final[dict[Callable[[], None], int]] = {
    _send_email: 11,
    _resize_image: 6,
    _charge_card: 3,
    _fetch_feed: 2,
    _remind: 3,
    _generate_report: 1,
}


def tasks() -> Iterator[Callable[[], None]]:
    """Deal what to send next, for ever."""
    deck = [send for send, count in _DECK.items() for _ in range(count)]
    while True:
        random.shuffle(deck)
        yield from deck


def main() -> None:
    """Send until somebody ends us."""
    for number, send in enumerate(tasks(), start=1):
        send()
        if number % _BURST_EVERY == 0:
            for _ in range(_BURST):
                _resize_image()
        time.sleep(random.uniform(*_PAUSE_SECONDS))


if __name__ == "__main__":
    main()
