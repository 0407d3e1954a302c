"""Names of temporary files and folders that say whose they are, so that what a killed process left can be removed.

A process that is killed cannot tidy up. Its name in the file's name (machine and number) lets the next one tell what
nobody will finish any more from what another process is writing just now.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from nnunet_lite.exceptions import StorageError

_OWNER = r"([0-9a-f]{8})([0-9a-f]{8})"  # machine, process
_FILE = re.compile(rf"^\.{_OWNER}[0-9a-f]{{8}}\.tmp\..")
_FOLDER = re.compile(rf"^nnunet_lite-{_OWNER}-")


def temporary_path(target: Path) -> Path:
    """A hidden name beside `target`, of the same ending."""
    return target.with_name(f".{_owner()}{secrets.token_hex(4)}.tmp.{target.name}")


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files in `folder`, and scratch folders, of processes of this machine that are no more.

    What cannot be removed stays.
    """
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if _is_abandoned(_FILE, entry.name):
                entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for entry in Path(tempfile.gettempdir()).glob("nnunet_lite-*"):
            if _is_abandoned(_FOLDER, entry.name):
                shutil.rmtree(entry, ignore_errors=True)  # other users' folders resist


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Yield a folder for files on their way between processes; it is removed at the end.

    Raises:
        StorageError: there is no place for temporary files.
    """
    try:
        folder = tempfile.mkdtemp(prefix=f"nnunet_lite-{_owner()}-")
    except OSError as error:
        raise StorageError(
            f"There is no folder for temporary files ({error.strerror}: {tempfile.tempdir or 'TMPDIR, /tmp, /var/tmp'}); "
            "set TMPDIR to one that can be written to, or work in one process: -npp 0 -nps 0"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def _is_abandoned(pattern: re.Pattern[str], name: str) -> bool:
    match = pattern.match(name)
    return match is not None and match[1] == _machine() and not _exists(int(match[2], 16))


def _exists(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
