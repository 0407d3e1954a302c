"""What final validations have predicted already, with which weights and from what, so that only the rest is predicted.

Upstream predicts all cases each time. Our record lies beside the results, in `fold_X/.nnunet_lite`, since upstream
takes every file with the dataset's ending in `fold_X/validation` for a prediction.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.utilities.files import to_plain
from nnunet_lite.utilities.journal import Journal
from nnunet_lite.utilities.parts import Part

_FORMAT = 1  # raise it when the same weights and data give other results
_TEMPORARY = re.compile(r"^\.[0-9a-f]+\.tmp\.(.+)$")  # what `atomic_path` calls a file that is being written


class FinishedOutputs:
    """The record of one fold: which output of which case was made from what, and the files that it consists of.

    Args:
        fold_folder: of the training.
        part: of the cases, which this process predicts.
    """

    def __init__(self, fold_folder: Path, part: Part) -> None:
        self._journal = Journal(fold_folder / ".nnunet_lite", "validation", part)
        self._known = {_key(**entry) for entry in self._journal.read()}

    def has(self, case: str, output: str, signature: str, files: Sequence[Path]) -> bool:
        """Whether the output was made from what `signature` stands for and its files have not changed since."""
        state = _state(files)
        return state is not None and _key(case, output, signature, state) in self._known

    def wrote(self, case: str, output: str, files: Sequence[Path]) -> bool:
        """Whether these files were written by this fold, with whatever weights."""
        state = _state(files)
        tail = None if state is None else _key(case, output, "", state)[3]
        return any((key[0], key[1], key[3]) == (case, output, tail) for key in self._known)

    def add(self, case: str, output: str, signature: str, files: Sequence[Path]) -> None:
        """Note an output whose files are complete."""
        state = _state(files)
        if state is not None:
            entry: dict[str, Any] = {"case": case, "output": output, "signature": signature, "files": state}
            self._known.add(_key(**entry))
            self._journal.append(entry)


def _key(case: str, output: str, signature: str, files: Sequence[Sequence[int]]) -> tuple[Any, ...]:
    return case, output, signature, tuple(tuple(file) for file in files)


def _state(files: Sequence[Path]) -> list[list[int]] | None:
    """Size and time of each file, None if one is missing."""
    if not all(file.is_file() for file in files):
        return None
    return [[status.st_size, status.st_mtime_ns] for status in (file.stat() for file in files)]


def settings_signature(network: nn.Module, settings: Mapping[str, Any]) -> str:
    """Stands for weights and settings, which all cases have in common."""
    content = {"format": _FORMAT, "weights": _weights(unwrap(network)), **settings}
    return hashlib.sha256(json.dumps(to_plain(content), sort_keys=True, default=str).encode()).hexdigest()


def _weights(network: nn.Module) -> str:
    """Checksum of all weights, each tensor once, wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    seen = set()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def case_signature(common: str, sources: Iterable[Path], previous: Iterable[Path], extra: Any = None) -> str:
    """Stands for everything an output of a case depends on.

    Args:
        common: of weights and settings.
        sources: the preprocessed case; its sizes count, so that it may be copied to another disk.
        previous: prediction of a cascade's previous stage; small, so its content counts.
        extra: whatever else this output depends on.
    """
    sizes = [[file.name, file.stat().st_size] for file in sources if file.is_file()]
    contents = [zlib.crc32(file.read_bytes()) for file in previous if file.is_file()]
    return hashlib.sha256(json.dumps(to_plain([common, sizes, contents, extra])).encode()).hexdigest()


def remove_half_written(folder: Path, keys: Iterable[str]) -> None:
    """Remove what killed processes left of files of these cases; nobody else may be writing them."""
    if not folder.is_dir():
        return
    beginnings = tuple(f"{key}." for key in keys)
    for file in folder.iterdir():
        match = _TEMPORARY.match(file.name)
        if match is not None and match[1].startswith(beginnings):
            file.unlink(missing_ok=True)
