"""Lets something go on in a process of its own while others are measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def meanwhile(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Call it in a process of its own, and end that."""
    process = multiprocessing.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()
