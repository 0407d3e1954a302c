"""What a background process of the pool does: takes tasks from a pipe, sends back what became of them."""

from __future__ import annotations

import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from nnunet_lite.exceptions import WorkerError
from nnunet_lite.utilities.processes import as_worker, be_killed_first
from nnunet_lite.utilities.wording import describe


@as_worker()
def work(connection: Connection, threads: int) -> None:
    """Main function of a worker: take tasks from the pipe until the other end goes away."""
    be_killed_first()
    while True:
        try:
            answer = _answer(connection.recv_bytes())
        except (EOFError, OSError):  # of the pipe
            return
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionError):
            return
        except Exception as error:  # a value or an exception that cannot be pickled
            connection.send((False, WorkerError(f"its result cannot be sent back: {describe(error)}"), ""))


def _answer(question: bytes) -> tuple[bool, Any, str]:
    try:
        function, args = ForkingPickler.loads(question)
        del question  # it may be large
    except Exception as error:  # what it takes cannot be imported here
        text = f"what its process was given cannot be read there: {describe(error)}"
        return False, WorkerError(text), traceback.format_exc()
    try:
        return True, function(*args), ""
    except Exception as error:
        trace = traceback.format_exc()
        error.__traceback__ = None
        error.__cause__ = error.__context__ = None
        return False, error, trace
