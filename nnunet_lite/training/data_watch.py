"""Says what a training waits for when data do not come, and adds up the time it waits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nnunet_lite.utilities.logging import logger

FIRST_WORD = 30.0  # seconds of waiting after which the first message comes
_LONGEST_SILENCE = 600.0  # seconds between messages, which grow rarer up to this
_IDLE = 60.0  # seconds after which a thread with nothing to watch ends


class DataWatch:
    """A thread that speaks up while somebody waits; it never ends anything, since a file server may come back.

    Messages come after `first_word` seconds and then whenever the time waited has doubled, at least every 10 minutes.
    The thread is started when it is needed and ends by itself.
    """

    def __init__(self, first_word: float = FIRST_WORD) -> None:
        self.seconds = 0.0  # waited in all
        self._first_word = first_word
        self._wait: tuple[float, Callable[[], str], Callable[[str], None]] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # the thread must not end while somebody relies on it

    @contextlib.contextmanager
    def waiting(self, what: Callable[[], str], say: Callable[[str], None] = logger.warning) -> Iterator[None]:
        """Count the time spent within, and say `what()` is waited for if it is long."""
        start = time.monotonic()
        self._wait = start, what, say
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a forked process has no threads
                self._thread = threading.Thread(target=self._run, name="nnunet_lite-data-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            self._wait = None
            self.seconds += time.monotonic() - start

    def _run(self) -> None:
        begun, due, last = 0.0, self._first_word, time.monotonic()
        while True:
            time.sleep(self._first_word / 10)
            wait, now = self._wait, time.monotonic()
            if wait is None:
                with self._lock:
                    if now - last > _IDLE and self._wait is None:
                        self._thread = None
                        return
                continue
            last = now
            if wait[0] != begun:
                begun, due = wait[0], self._first_word
            waited = now - begun
            if waited >= due:
                due = waited + min(waited, _LONGEST_SILENCE)
                _say(wait, waited)


def _say(wait: tuple[float, Callable[[], str], Callable[[str], None]], waited: float) -> None:
    _, what, say = wait
    try:
        say(f"Waiting for data for {waited:.0f} s: {what()}")
    except Exception as error:  # what is asked for may come or go at this very moment
        say(f"Waiting for data for {waited:.0f} s ({type(error).__name__} when asking what for)")


def describe_wait(loader: Any) -> str:
    """What a loader is waited for to give, of whatever kind it is, and how to end the wait."""
    describe: Callable[[], str] | None = getattr(loader, "describe_wait", None)
    what = describe() if callable(describe) else f"the next batch of {type(loader).__name__}"
    end = "saves and ends" if getattr(loader, "stops_waiting", False) else "saves and ends after it, twice ends at once"
    return f"{what}. The training goes on when it comes; Ctrl-C (or SIGTERM) {end}, --c continues then"
