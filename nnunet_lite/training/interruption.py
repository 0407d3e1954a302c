"""Ending a training on request: SIGTERM, SIGUSR1 and Ctrl-C end the iteration first, so that the state can be saved."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from nnunet_lite.utilities.distributed import is_distributed
from nnunet_lite.utilities.logging import logger

EXIT_CODE = 85  # of a command whose training was ended on request and can be continued

_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # what clusters send before they kill, and Ctrl-C


class TrainingInterrupted(SystemExit):
    """Training ended on request after its state was saved; the process ends with code 85 unless somebody catches it.

    Args:
        flag: of nnUNetv2_train, with which the same command does what is left.
    """

    def __init__(self, flag: str = "--c") -> None:
        super().__init__(EXIT_CODE)
        self.flag = flag


class StopRequest:
    """Context manager that remembers a request to stop instead of obeying it at once; a second one is obeyed.

    One of several ranks remembers only: a launcher repeats what a scheduler has sent to each process, and it is the
    launcher that ends those who do not stop.

    Args:
        notice: tell the user that the request was received.
    """

    def __init__(self, notice: bool = True) -> None:
        self.received: str | None = None
        self._notice = notice
        self._before: dict[int, Any] = {}
        self._process = 0

    def __enter__(self) -> StopRequest:
        self._process = os.getpid()
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is None:  # Windows has no SIGUSR1
                continue
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: signals are somebody else's business
                return self
        if self._notice:
            _active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopping = self.received is not None or (kind is not None and issubclass(kind, TrainingInterrupted))
        if stopping and is_distributed():
            return  # what a launcher repeats must not reach the end of this process either
        if self in _active:
            _active.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        in_worker = os.getpid() != self._process  # forked by a user's loader: what is saved is its parent's business
        if in_worker and number != signal.SIGTERM:
            return
        if not in_worker and self.received is not None and is_distributed():
            return
        if in_worker or self.received is not None:
            signal.signal(number, signal.SIG_DFL if in_worker else self._before.get(number, signal.SIG_DFL))
            signal.raise_signal(number)
            return
        self.receive(signal.Signals(number).name)

    def receive(self, name: str) -> None:
        """Remember the request, the first time."""
        if self.received is None:
            self.received = name
            if self._notice:
                logger.info("%s received: saving after this iteration (once more ends at once, without saving)", name)


_active: list[StopRequest] = []  # of the training that is running


def request(name: str) -> bool:
    """Ask the running training to stop, as a signal of that name would; whether there is one."""
    for stop in _active:
        stop.receive(name)
    return bool(_active)
