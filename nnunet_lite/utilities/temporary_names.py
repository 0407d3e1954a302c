"""Names of temporary files that say whose they are, so that what a killed process left can be removed.

A process that is killed cannot tidy up. Its name in the file's name (machine and number) lets the next one tell what
nobody will finish any more from what another process is writing just now.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"^\.([0-9a-f]{8})([0-9a-f]{8})[0-9a-f]{8}\.tmp\..")  # machine, process, random
_LONGEST = 255  # bytes of a name on nearly every file system


def temporary_path(target: Path) -> Path:
    """A hidden name beside `target`, of the same ending; of a very long name only the end is kept."""
    start, name = f".{_owner()}{secrets.token_hex(4)}.tmp.", target.name
    while len(os.fsencode(start + name)) > _LONGEST >= len(os.fsencode(target.name)):
        name = name[1:]
    return target.with_name(start + name)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `target`, removed at the end; those that killed processes left go first."""
    remove_abandoned_files(target.parent)
    folder = temporary_path(target)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_files(folder: Path) -> None:
    """Remove temporary files and folders of processes that are no more; what cannot go stays."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if not _is_abandoned(entry.name):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _owner() -> str:
    return f"{_machine()}{os.getpid():08x}"


def _machine() -> str:
    """Stands for this machine, or rather for the processes whose numbers mean something here: a container's own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    node = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(f'{node} {space}'.encode()):08x}"


def _is_abandoned(name: str) -> bool:
    match = _NAME.match(name)
    return match is not None and match[1] == _machine() and not process_exists(int(match[2], 16))


def process_exists(pid: int) -> bool:
    """Whether a process of this machine runs; on Windows, where asking is not safe, True."""
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
