"""How much memory there is, how much a process holds, and sizes as people write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lite.control_groups import memory_of_groups
from nnunet_lite.exceptions import ArgumentError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of "16G", "800M", "2.5GiB" or a plain number.

    Raises:
        ArgumentError: anything else; less than 1 MiB, which somebody meant otherwise.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if match is None or float(match[1]) <= 0:
        raise ArgumentError(f"{text!r} is no memory size; expected a number with K, M, G or T, for example 16G")
    size = int(float(match[1]) * _UNITS[match[2]])
    if size < 2**20:
        raise ArgumentError(f"{text!r} is a memory size of {size} bytes, too little; did you mean {match[1]}G?")
    return size


def format_size(number_of_bytes: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if number_of_bytes < 1024:
            return f"{number_of_bytes:.0f} {unit}"
        number_of_bytes /= 1024
    return f"{number_of_bytes:.1f} GiB"


def rss(pid: int | None = None) -> int:
    """Resident memory of a process in bytes (0 where the system does not tell or the process is gone)."""
    try:
        pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory_of(pids: Iterable[int]) -> int:
    """Bytes that processes hold together; what they share counts once (0 for those the system does not tell of)."""
    return sum(_proportional(pid) or rss(pid) for pid in pids)


def _proportional(pid: int) -> int | None:
    match = re.search(r"^Pss:\s+(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def memory_limit() -> int:
    """Bytes this process may use at all: the limit of a container or job, or the machine's memory, the smaller."""
    return min([_physical_memory(), *(memory.limit for memory in memory_of_groups())])


def available_memory() -> int:
    """Bytes that can still be taken now without swapping, within the limits of a container or job."""
    available = _meminfo("MemAvailable") or _physical_memory() // 2
    return min([available, *(max(0, memory.limit - memory.used) for memory in memory_of_groups())])


def _physical_memory() -> int:
    total = _meminfo("MemTotal")
    if total is not None:
        return total
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 * 2**30  # Windows does not tell without further packages; a common size is better than a refusal


def _meminfo(key: str) -> int | None:
    match = re.search(rf"^{key}:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
