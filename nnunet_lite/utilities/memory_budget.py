"""Memory shared by everything that works at the same time: who may start, who waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import available_memory, format_size

_EXAMPLES = 5  # cases named in a message
_LOOK = 0.5  # seconds between two looks of one who waits, should a notice get lost


class MemoryBudget:
    """Bytes that may be taken together, by estimate, in this process and its workers.

    Work is admitted if it fits beside what is taken, or if nothing else works: what needs more than the limit by
    itself runs alone. Arrays that wait for their turn are taken into account, but do not keep the next step from
    running: it is what they wait for. Work in this process comes first; workers get what it leaves.

    Args:
        limit: bytes (default: 80 % of what is available).
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit if limit is not None else int(0.8 * available_memory())
        self._changed = threading.Condition()
        self._working = 0  # pieces of work
        self._alone = False
        self._taken = 0  # bytes of work
        self._waiting = 0  # bytes of arrays
        self._first = 0  # who waits in `hold`

    @property
    def taken(self) -> int:
        """Bytes taken now, by work and by arrays that wait."""
        return self._taken + self._waiting

    def warn_of_large(self, cases: Iterable[tuple[str, int]]) -> None:
        """Say which of all cases (name, bytes) need more than the limit by themselves and will run alone."""
        cases = list(cases)
        large = [f"{name} ({format_size(size)})" for name, size in cases if size > self.limit]
        if large:
            logger.warning(
                "%d of %d cases need more memory by estimate than the limit of %s and run alone: %s%s",
                len(large),
                len(cases),
                format_size(self.limit),
                ", ".join(large[:_EXAMPLES]),
                ", ..." if len(large) > _EXAMPLES else "",
            )

    def admit(self, size: int, *, alone: bool = False) -> bool:
        """Take `size` bytes for a piece of work, if there is room; give them back with `release`.

        Args:
            alone: only while nothing else works, which keeps everything else waiting.
        """
        with self._changed:
            if self._first or self._alone or not self._fits(size) or (alone and self._working):
                return False
            self._start(size)
            self._alone = alone
            return True

    def release(self, size: int) -> None:
        """A piece of work has ended."""
        with self._changed:
            self._working -= 1
            self._taken -= size
            self._alone = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take `size` bytes for work in this process within the block; waits for workers that are in the way."""
        with self._changed:
            self._first += 1
            try:
                while self._alone or not self._fits(size):
                    self._changed.wait(_LOOK)
                self._start(size)
            finally:
                self._first -= 1
        try:
            yield
        finally:
            self.release(size)

    def keep(self, size: int) -> None:
        """An array of `size` bytes (negative: no longer) waits in memory."""
        with self._changed:
            self._waiting += size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._working or self.taken + size <= self.limit

    def _start(self, size: int) -> None:
        self._working += 1
        self._taken += size
