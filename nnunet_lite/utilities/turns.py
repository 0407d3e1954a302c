"""A lock that may be part of an object that is copied, pickled or taken along by a fork."""

from __future__ import annotations

import os
import threading
from typing import Any


class Turns:
    """Lets one thread at a time into a `with` block, the same thread also again from inside.

    A copy through pickle or `deepcopy`, and what a forked process has of it, are free, whoever is inside here.
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        return Turns, ()
