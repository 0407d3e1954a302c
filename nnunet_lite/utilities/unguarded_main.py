"""Scripts whose main part is not protected: background processes import it, and would start processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from nnunet_lite.exceptions import WorkerError

WORKER_NAME = "nnunet_lite worker"  # which an import of the main module in it can be told by
EXIT_CODE = 67  # of such a worker whose main module is unprotected; no signal, no code of Python's

HINT = (
    "Background processes import your script, which starts processes itself: protect the main part of your script with "
    "if __name__ == '__main__':, or ask for no processes (num_processes=0)"
)


class UnguardedMain(WorkerError):
    """The script that started background processes does so again when they import it; concerns all cases at once."""

    def __init__(self, message: str = HINT) -> None:
        super().__init__(message)


def concerning_all(errors: Iterable[BaseException | None]) -> UnguardedMain | None:
    """The error among those of several cases that is said once instead of them; None if each stands for itself."""
    return next((error for error in errors if isinstance(error, UnguardedMain)), None)


_lock = threading.Lock()


@contextlib.contextmanager
def without_missing_main() -> Iterator[None]:
    """Background processes started within the block do not look for a main module that is no file.

    A script that comes through stdin (`python - < script.py`) calls itself `<stdin>`; they would die of looking for it.
    """
    main: Any = sys.modules.get("__main__")
    with _lock:
        file = getattr(main, "__file__", None)
        if file is None or os.path.exists(file) or getattr(main, "__spec__", None) is not None:
            yield
            return
        del main.__file__
        try:
            yield
        finally:
            main.__file__ = file


def refuse_in_import_of_main() -> None:
    """Call before background processes are started.

    Raises:
        UnguardedMain: this is itself a process that is still being started and imports its parent's main module.
        SystemExit: it is a worker of ours; it ends without a word, since its parent says it, once.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):
        return
    if process.name == WORKER_NAME:
        sys.exit(EXIT_CODE)
    raise UnguardedMain
