"""What a thread that makes batches is doing at the moment, for those who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

_thread = threading.local()


def report_to(sink: Callable[[str], None] | None) -> None:
    """Let `sink` be told what this thread does from now on; None for nobody."""
    _thread.sink = sink
    _thread.case = ""


def note(doing: str, case: str | None = None) -> None:
    """Say what this thread does now, such as "reading", and with which case (None: the one named before)."""
    sink = getattr(_thread, "sink", None)
    if sink is None:
        return
    if case is not None:
        _thread.case = case
    sink(f"{doing} {_thread.case}")
