"""Background processes that are stopped (SIGSTOP, a debugger): said, so that nobody waits in the dark."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.processes import describe_state, is_stopped

_PATIENCE = 5.0  # seconds a process may be stopped before that is worth a word
_INTERVAL = 1.0  # between two looks


class StoppedProcesses:
    """Says once of each process that it is stopped, and that it goes on."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._told: set[int] = set()
        self._looked = 0.0

    def look(self, processes: Iterable[tuple[int | None, str]]) -> None:
        """Look at processes (number, what it works on); as often as one likes, it does so once in a second."""
        now = time.monotonic()
        if now - self._looked < _INTERVAL:
            return
        self._looked = now
        for pid, task in processes:
            if pid is None:
                continue
            if not is_stopped(pid):
                self._since.pop(pid, None)
                if pid in self._told:
                    self._told.remove(pid)
                    logger.info("%s: process %d goes on", task, pid)
            elif now - self._since.setdefault(pid, now) > _PATIENCE and pid not in self._told:
                self._told.add(pid)
                logger.warning("%s waits for background process %d: %s", task, pid, describe_state(pid))
