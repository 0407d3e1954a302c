"""Arrays of the cases read last, kept open: of a small patch, opening its files takes longer than reading it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import blosc2

Arrays = tuple[Any, Any, Any]  # data, seg, previous stage or None; lazy


class OpenCases:
    """The cases used last, as many as the process may well hold open (each file takes a descriptor).

    Only memory-mapped blosc2 arrays are kept: what is read from others may be a whole case in memory. Not for use by
    several threads at once.

    Args:
        files: how many files may be open; None takes a quarter of what the system grants this process, at most 1024.
    """

    def __init__(self, files: int | None = None) -> None:
        self._files = files_at_most() if files is None else files
        self._used = 0
        self._cases: OrderedDict[str, Arrays] = OrderedDict()

    def get(self, case: str, load_arrays: Callable[[str], Arrays]) -> Arrays:
        """Arrays of a case, opened by `load_arrays` unless they are here."""
        if case in self._cases:
            self._cases.move_to_end(case)
            return self._cases[case]
        arrays = load_arrays(case)
        present = [array for array in arrays if array is not None]
        if len(present) <= self._files and all(isinstance(array, blosc2.NDArray) for array in present):
            self._cases[case] = arrays
            self._used += len(present)
            while self._used > self._files:
                self._used -= sum(array is not None for array in self._cases.popitem(last=False)[1])
        return arrays


def files_at_most() -> int:
    """A quarter of the files this process may have open, at most 1024; 64 where the system does not say."""
    if sys.platform == "win32":
        return 64
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if limit == resource.RLIM_INFINITY else min(1024, limit // 4)
