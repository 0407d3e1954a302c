"""Waiting for background work in such a way that Ctrl-C and SIGTERM are heard.

Python acts on a signal between two steps of the main thread. One that arrives when this thread is about to fall asleep
in a lock is acted upon only when the lock wakes it, which may be hours later; so nobody here sleeps for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

_NAP = 0.5  # seconds after which a signal is heard at the latest


def error_of(future: Future[Any]) -> BaseException | None:
    """What the work ended with, None if all is well; waits for its end."""
    wait_for_any([future])
    return future.exception()


def wait_for_any(futures: Iterable[Future[Any]]) -> None:
    """Wait until one of them has ended."""
    futures = list(futures)
    while futures and not wait(futures, _NAP, FIRST_COMPLETED).done:
        pass


def as_they_end(futures: Iterable[Future[Any]]) -> Iterator[Future[Any]]:
    """Each of them, as soon as it has ended."""
    left = set(futures)
    while left:
        ended, left = wait(left, _NAP, FIRST_COMPLETED)
        yield from ended
