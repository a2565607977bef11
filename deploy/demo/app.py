"""A Celery application as anybody might have it: it knows nothing of the plugin or the sidecar."""

from __future__ import annotations

import random
import time
from typing import Any

from celery import Celery, Task

# Where broker and results are comes from CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
app = Celery("demo")
app.conf.update(broker_connection_retry_on_startup=True, result_expires=600)


class CardDeclined(Exception):
    """Raised when the bank says no."""


class FeedUnavailable(Exception):
    """Raised when the site of a feed does not answer."""


@app.task
def send_email(address: str, template: str = "welcome") -> str:
    """Do something short."""
    time.sleep(random.uniform(0.1, 0.4))
    return f"{template} sent to {address}"


@app.task
def resize_image(path: str, width: int = 800) -> dict[str, Any]:
    """Do something that takes a moment."""
    time.sleep(random.uniform(0.3, 1.2))
    return {"path": path, "width": width}


@app.task(bind=True)
def generate_report(self: Task, report_id: int, personas: int = 3) -> int:
    """Do something long and say how far it is."""
    for done in range(personas):
        message = f"Generating with {personas} personas"
        self.update_state(state="PROGRESS", meta={"message": message, "current": done, "total": personas})
        time.sleep(2)
    return report_id


@app.task
def charge_card(order_id: int, amount: float, currency: str = "EUR") -> None:
    """Fail."""
    time.sleep(random.uniform(0.2, 0.6))
    raise CardDeclined(f"order {order_id}: {amount:.2f} {currency} declined")


@app.task(bind=True, max_retries=3)
def fetch_feed(self: Task, url: str) -> str:
    """Fail at first, wait, and succeed at the second attempt."""
    time.sleep(random.uniform(0.2, 0.5))
    if self.request.retries == 0:
        raise self.retry(exc=FeedUnavailable(f"{url} answered 503"), countdown=3)
    return url


@app.task
def remind(user: str, text: str = "your trial ends soon") -> str:
    """Do something that is mostly sent with a countdown."""
    time.sleep(0.2)
    return f"{user}: {text}"
