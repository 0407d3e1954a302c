"""Journals: files to which finished work is appended, so that a process that is killed loses none of it.

Every part of a job writes a journal of its own, since appending from several machines to one file of a shared folder
is not safe; all of them are read together.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import pickle
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities.files import RestrictedUnpickler, storage_errors, write_bytes
from nnunet_lite.utilities.parts import Part

_FRAME = 12  # bytes before each record: its length and its checksum
_NAME = re.compile(r"\.(\d+)-of-(\d+)\.journal$")


class Journal:
    """Records of one stage: those of all its parts are read, this part's are appended to.

    Args:
        folder: where the journals lie; made when the first record is written.
        name: of the stage.
        part: whose journal is written.
    """

    def __init__(self, folder: Path, name: str, part: Part) -> None:
        self._folder, self._name = folder, name
        self._file = folder / f"{name}.{part.part_id}-of-{part.num_parts}.journal"
        self._is_mended = False

    @property
    def num_parts(self) -> int:
        """Number of parts that the youngest journal tells of; 0 if there is none."""
        ages = {number: _modified(file) for file, number in self._files()}
        return max(ages, key=lambda number: ages[number], default=0)

    def read(self) -> Iterator[Any]:
        """All records of all parts, each journal in the order of writing.

        An end that was cut off, by a kill or because another machine is just writing it, is passed over.

        Raises:
            StorageError: a file that nobody here wrote.
        """
        for file, _ in self._files():
            for record, _ in _records(file):
                yield record

    def append(self, record: Any) -> None:
        """Add a record of plain containers and numpy values to this part's journal.

        It survives the end of this process, not that of the machine: then the work is done again.

        Raises:
            StorageError: the disk is full or the folder cannot be written to.
        """
        with storage_errors(self._file):
            self._mend()
            content = _framed(record)
            with self._file.open("ab", buffering=0) as file:
                self._is_mended = file.write(content) == len(content)
            if not self._is_mended:  # the disk is full; nothing may follow half a record
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace(self, records: list[Any]) -> None:
        """Let this part's journal hold these records and remove those of other parts."""
        write_bytes(b"".join(_framed(record) for record in records), self._file)
        for file, _ in self._files():
            if file != self._file:
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the journals of all parts."""
        for file, _ in self._files():
            file.unlink(missing_ok=True)
        self._is_mended = False

    def _mend(self) -> None:
        """Before the first record: make the folder, and cut off what a killed process left half-written."""
        if self._is_mended:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._file.is_file():
            whole = max((end for _, end in _records(self._file)), default=0)
            if whole < self._file.stat().st_size:
                os.truncate(self._file, whole)
        self._is_mended = True

    def _files(self) -> list[tuple[Path, int]]:
        """The journals of this stage and the number of parts each tells of."""
        found = []
        for path in sorted(glob.glob(f"{glob.escape(str(self._folder / self._name))}.*.journal")):
            match = _NAME.search(path)
            if match is not None and path[: match.start()] == str(self._folder / self._name):
                found.append((Path(path), int(match[2])))
        return found


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # another part has just removed it
        return 0


def _framed(record: Any) -> bytes:
    content = pickle.dumps(record, protocol=4)
    return len(content).to_bytes(8, "little") + zlib.crc32(content).to_bytes(4, "little") + content


def _records(file: Path) -> Iterator[tuple[Any, int]]:
    """Records of a journal with the position behind each, up to the first that is incomplete or damaged."""
    try:
        content = file.read_bytes()
    except OSError:  # another part has just removed it
        return
    start = 0
    while len(content) >= start + _FRAME:
        stop = start + _FRAME + int.from_bytes(content[start : start + 8], "little")
        record = content[start + _FRAME : stop]
        if len(content) < stop or zlib.crc32(record) != int.from_bytes(content[start + 8 : start + _FRAME], "little"):
            return
        try:
            entry = RestrictedUnpickler(io.BytesIO(record)).load()
        except Exception as error:  # whole, but not written by us
            raise StorageError(f"{file} is no journal of ours: {error}; delete it and run the command again") from error
        yield entry, stop
        start = stop
