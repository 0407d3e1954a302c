"""Ending a training on request: what SIGTERM, SIGUSR1 and Ctrl-C mean at its start, in its iterations, at its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from nnunet_lite.utilities.logging import logger

EXIT_CODE = 85  # of a command whose training was ended on request and can be continued

_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # what clusters send before they kill, and Ctrl-C

Handler = Callable[[int, FrameType | None], None]


class TrainingInterrupted(SystemExit):
    """Training ended on request with nothing lost; the process ends with code 85 unless somebody catches it.

    Args:
        flag: of nnUNetv2_train, with which the same command does what is left.
    """

    def __init__(self, flag: str = "--c") -> None:
        super().__init__(EXIT_CODE)
        self.flag = flag


def signal_numbers() -> list[int]:
    """The signals that ask for an end; Windows has no SIGUSR1."""
    return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


@contextlib.contextmanager
def ends_at_once(flag: str = "--c") -> Iterator[None]:
    """Within the block a request to stop raises TrainingInterrupted: there is nothing to save that is not on disk.

    One of several ranks hears only the first request: their launcher repeats what the scheduler has sent to all.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        if _is_rank():
            ignore_requests()
        _say(f"{signal.Signals(number).name} received: stopping; there is nothing to save now")
        raise TrainingInterrupted(flag)

    before = _install(leave)
    stopping = False
    try:
        yield
    except TrainingInterrupted:
        stopping = _is_rank()
        raise
    finally:
        if not stopping:
            _put_back(before)


def ignore_requests() -> None:
    """From now on this process, which is ending, is not disturbed by further requests to stop."""
    for number in signal_numbers():
        signal.signal(number, signal.SIG_IGN)


class StopRequest:
    """Context manager that remembers a request to stop instead of obeying it at once.

    Schedulers and launchers may send several signals, to the process and to its group: only a second Ctrl-C ends
    without saving, and not even that one of several ranks, which their launcher ends.

    Args:
        notice: tell the user that the request was received.
    """

    def __init__(self, notice: bool = True) -> None:
        self.received: str | None = None
        self._notice = notice
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = _install(self._remember)
        if self._notice:
            _active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopping = self.received is not None or (kind is not None and issubclass(kind, TrainingInterrupted))
        if stopping and _is_rank():
            return  # what a launcher repeats must not reach the end of this process either
        if self in _active:
            _active.remove(self)
        _put_back(self._before)
        self._before = {}

    def receive(self, name: str) -> None:
        """Remember the request, the first time."""
        if self.received is None:
            self.received = name
            if self._notice:
                _say(f"{name} received: saving after this iteration (Ctrl-C now ends without saving)")

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT and not _is_rank():
            raise KeyboardInterrupt
        self.receive(signal.Signals(number).name)


_active: list[StopRequest] = []  # of the training that is running


def request(name: str) -> bool:
    """Ask the running training to stop, as a signal of that name would; whether there is one."""
    for stop in _active:
        stop.receive(name)
    return bool(_active)


def _is_rank() -> bool:
    """Whether this is one of several processes; asked without importing torch, which takes seconds."""
    group: Any = sys.modules.get("torch.distributed")
    return group is not None and bool(group.is_available() and group.is_initialized())


def _install(handler: Handler) -> dict[int, Any]:
    """Handle the signals in this process; returns the handlers that were there, nothing outside the main thread."""
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handler(number, frame)
        elif number == signal.SIGTERM:  # forked by a user's loader; what else arrives is its parent's business
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's business
        for number in signal_numbers():
            before[number] = signal.signal(number, handle)
    return before


def _put_back(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _say(line: str) -> None:
    with contextlib.suppress(RuntimeError):  # the signal came in the middle of writing another line
        logger.info("%s", line)
