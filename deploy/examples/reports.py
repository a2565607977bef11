"""A Celery application as there are many: nothing in it knows that somebody watches."""

import time

from celery import Celery

REDIS = "redis://127.0.0.1:6379/0"

app = Celery("reports", broker=REDIS, backend=REDIS)


@app.task(bind=True)
def make_report(self, pages: int) -> str:
    """Make a report, page by page, and say how far it is, as Celery has it."""
    for page in range(pages):
        self.update_state(state="PROGRESS", meta={"current": page, "total": pages})
        time.sleep(0.3)
    return f"{pages} pages"
