"""Questions to a process and its answers, carried by a thread of their own.

A pipe holds little: who sends more to a process that is stopped (SIGSTOP, a debugger), or receives more from it, waits
until it goes on. Here only the thread does.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

_LAST_WORDS = 1.0  # seconds that what an ended process has said may still take


class Answer(NamedTuple):
    """What came back, or the error that reading it ended with."""

    content: Any = None
    error: Exception | None = None


class Courier:
    """One conversation: every question gets one answer.

    Args:
        connection: to the process, closed by `close`.
        notify: called, in another thread, when an answer is there and when there will be none.

    Raises:
        OSError: the system allows no more threads.
    """

    def __init__(self, connection: Connection, notify: Callable[[], None]) -> None:
        self._connection = connection
        self._notify = notify
        self._questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: deque[bytes | Answer] = deque()  # as they came: reading a large one takes long
        self.over = False  # nothing more comes from there
        self._thread = threading.Thread(target=self._carry, name="nnunet_lite-courier", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many processes and threads
            raise OSError(errno.EAGAIN, str(error)) from None

    def ask(self, question: Any) -> None:
        """Send a question without waiting; raises what pickling it ends with."""
        self._questions.put(ForkingPickler.dumps(question))

    def take(self) -> Answer | None:
        """The oldest answer that nobody has taken, if there is one; it is read here, which may take a moment."""
        if not self._answers:
            return None
        answer = self._answers.popleft()
        return answer if isinstance(answer, Answer) else _read(answer)

    def close(self) -> None:
        """End the conversation with a process that has ended; what it said last can still be taken."""
        self._questions.put(None)
        self._thread.join(_LAST_WORDS)
        self._connection.close()

    def _carry(self) -> None:
        try:
            while (question := self._questions.get()) is not None:
                self._connection.send_bytes(question)
                del question  # it may be large
                self._answers.append(self._connection.recv_bytes())
                self._tell()
        except (EOFError, OSError, TypeError):  # TypeError: closed in the middle of a message
            pass
        except MemoryError as error:  # what is left of the message lies in the pipe: nothing can follow it
            self.over = True
            self._answers.append(Answer(error=error.with_traceback(None)))  # which holds what was read
        finally:
            self.over = True
            self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            self._notify()


def _read(message: bytes) -> Answer:
    try:
        return Answer(ForkingPickler.loads(message))
    except Exception as error:  # of a class that does not survive the way here
        return Answer(error=error)
