"""Arrays of the cases read last, kept open: of a small patch, opening its files takes longer than reading it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any

import blosc2

Arrays = tuple[Any, Any, Any]  # data, seg, previous stage or None; lazy

_MEMORY = 2**26  # bytes that open arrays may take; a worker process has them for itself
_PER_ARRAY, _BLOCKS = 70_000, 4  # bytes of an open array, and blocks it is decompressed in; measured


class OpenCases:
    """The cases used last, as many as 64 MiB and the files a process may open allow.

    Only memory-mapped blosc2 arrays are kept: what is read from others may be a whole case in memory. Not for use by
    several threads at once.

    Args:
        files: how many files may be open; None takes a quarter of what the system grants this process, at most 1024.
        memory: bytes.
    """

    def __init__(self, files: int | None = None, memory: int = _MEMORY) -> None:
        self._free_files = files_at_most() if files is None else files
        self._free_memory = memory
        self._cases: OrderedDict[str, Arrays] = OrderedDict()

    def get(self, case: str, load_arrays: Callable[[str], Arrays]) -> Arrays:
        """Arrays of a case, opened by `load_arrays` unless they are here."""
        if case in self._cases:
            self._cases.move_to_end(case)
            return self._cases[case]
        arrays = load_arrays(case)
        if all(array is None or isinstance(array, blosc2.NDArray) for array in arrays):
            self._cases[case] = arrays
            self._take(arrays, 1)
            while self._cases and (self._free_files < 0 or self._free_memory < 0):
                self._take(self._cases.popitem(last=False)[1], -1)
        return arrays

    def _take(self, arrays: Arrays, sign: int) -> None:
        present = [array for array in arrays if array is not None]
        self._free_files -= sign * len(present)
        blocks = [_PER_ARRAY + _BLOCKS * prod(array.blocks) * array.dtype.itemsize for array in present]
        self._free_memory -= sign * sum(blocks)


def files_at_most() -> int:
    """A quarter of the files this process may have open, at most 1024; 64 where the system does not say."""
    if sys.platform == "win32":
        return 64
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if limit == resource.RLIM_INFINITY else min(1024, limit // 4)
