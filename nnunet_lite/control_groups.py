"""What control groups (Linux cgroups) grant this process: a container, a SLURM job, a service.

A limit may stand on the group of the process or on any above it; the tightest counts. Both versions are read. Inside a
container the group's own name may not be visible: then what is mounted there is the container's group.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_MOUNT = "/sys/fs/cgroup"
_MEMBERSHIP = "/proc/self/cgroup"


class Memory(NamedTuple):
    """A group's memory in bytes."""

    limit: int
    used: int  # what cannot be taken back: without the files that the kernel merely keeps in memory


def memory_of_groups() -> list[Memory]:
    """Of each group with a limit: that, and what its processes have taken."""
    found = []
    for group in _groups("memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        taken = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
        if limit is not None:
            found.append(Memory(limit, max(0, taken - _files_in_memory(group))))
    return found


def cpu_quota() -> int | None:
    """Whole cores that the groups grant, at least one; None without a quota."""
    shares = [share for share in map(_share_of_cores, _groups("cpu")) if share is not None]
    return max(1, int(min(shares))) if shares else None


def _groups(controller: str) -> list[Path]:
    """Folders of the group that this process is in and of those above it, innermost first; [] where there are none."""
    found = []
    for line in _read(_MEMBERSHIP).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if not controllers:  # version 2, alone or beside version 1
            roots = [Path(_MOUNT), Path(_MOUNT, "unified")]
        elif controller in controllers.split(","):
            roots = [Path(_MOUNT, controllers), Path(_MOUNT, controller)]
        else:
            continue
        root = next((root for root in roots if (root / "cgroup.procs").is_file()), None)
        if root is not None:
            inner = Path(name.lstrip("/"))
            found += [root / part for part in (inner, *inner.parents) if (root / part).is_dir()]
    return list(dict.fromkeys(found))


def _share_of_cores(group: Path) -> float | None:
    """Cores by the quota of one group."""
    quota, _, period = _read(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    known = quota.isdigit() and period.isdigit() and int(period) > 0  # else "max", or -1
    return int(quota) / int(period) if known else None


def _files_in_memory(group: Path) -> int:
    """Bytes of a group's files that the kernel keeps and gives back under pressure, those of the groups below too."""
    lines = (line.split() for line in _read(group / "memory.stat").splitlines())
    values = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
    prefix = "total_" if "total_inactive_file" in values else ""  # of version 1, where the plain names leave them out
    return values.get(f"{prefix}inactive_file", 0) + values.get(f"{prefix}active_file", 0)


def _number(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text.isdigit() else None


def _read(file: str | Path) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
