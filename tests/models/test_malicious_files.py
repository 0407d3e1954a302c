"""Checkpoints and properties files made to run code when they are read: refused in one line, never executed."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import write_model

from nnunet_lite.exceptions import CheckpointError, StorageError, nnUNetError
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.utilities.files import load_pickle


class _Calls:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self._parts = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> Any:
        return self._parts


def _object_array(marker: str) -> Any:
    array = np.empty(2, object)
    array[:] = [1, _Calls(os.system, f"touch {marker}")]
    return array


def _global(module: str, name: str, marker: str, protocol: int) -> bytes:
    """Opcodes by hand: a call of module.name with one text."""
    if protocol < 4:
        return f"c{module}\n{name}\n(S'touch {marker}'\ntR.".encode()
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + texts + b"\x93(S'touch " + marker.encode() + b"'\ntR."


TRICKS: dict[str, Callable[[str], Any]] = {  # what is pickled; bytes are a pickle as it stands
    "os.system": lambda marker: _Calls(os.system, f"touch {marker}"),
    "nested in containers": lambda marker: {"a": [({"b": (_Calls(os.system, f"touch {marker}"),)},)]},
    "a dictionary's key": lambda marker: {_Key(marker): 1},
    "eval": lambda marker: _Calls(eval, f"__import__('os').system('touch {marker}')"),
    "exec": lambda marker: _Calls(exec, f"import os; os.system('touch {marker}')"),
    "a chain of getattr": lambda marker: (  # getattr(__import__("os"), "system")(...), by hand
        f"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {marker}'\ntR."
    ).encode(),
    "arguments that are calls": lambda marker: _Calls(tuple, [_Calls(os.system, f"touch {marker}")]),
    "a state that is a call": lambda marker: _Calls(dict, state={"x": _Calls(os.system, f"touch {marker}")}),
    "an array of objects": _object_array,
    "an array's state": lambda marker: np.array([{"x": _Calls(os.system, f"touch {marker}")}], object),
    "another unpickler": lambda marker: _Calls(pickle.loads, pickle.dumps(_Calls(os.system, f"touch {marker}"))),
    "torch.load": lambda marker: _Calls(torch.load, marker),
    "numpy.load": lambda marker: _Calls(np.load, marker),
    "protocol 0 by hand": lambda marker: _global("posix", "system", marker, 0),
    "protocol 4 by hand": lambda marker: _global("posix", "system", marker, 4),
    "a name with dots": lambda marker: _global("os", "path.os.system", marker, 4),
    "subprocess": lambda marker: _global("subprocess", "getoutput", marker, 2),
    "a module that runs code when imported": lambda marker: _global("antigravity", "geohash", marker, 2),
}


class _Key:
    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __hash__(self) -> int:
        return 1

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._marker}",)


def _pickled(trick: str, marker: Path, protocol: int) -> bytes:
    content = TRICKS[trick](str(marker))
    return content if isinstance(content, bytes) else pickle.dumps({"spacing": content}, protocol)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def _refused(function: Callable[[], object], marker: Path, kind: type[nnUNetError], file: Path) -> None:
    with pytest.raises(kind) as error:
        function()
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("trick", TRICKS)
def test_properties(tmp_path: Path, marker: Path, trick: str, protocol: int) -> None:
    file = tmp_path / "case.pkl"
    file.write_bytes(_pickled(trick, marker, protocol))
    _refused(lambda: load_pickle(file), marker, StorageError, file)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("trick", TRICKS)
def test_checkpoints(tmp_path: Path, marker: Path, trick: str, protocol: int) -> None:
    """In torch's archive, as a bare pickle, and in the form before torch 1.6."""
    file = tmp_path / "checkpoint_final.pth"
    content = _pickled(trick, marker, protocol)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    _refused(lambda: load_checkpoint(file), marker, CheckpointError, file)
    file.write_bytes(content)
    _refused(lambda: load_checkpoint(file), marker, CheckpointError, file)
    heads = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    file.write_bytes(b"".join([*heads, content, pickle.dumps([], 2)]))
    _refused(lambda: load_checkpoint(file), marker, CheckpointError, file)


def test_the_oldest_form_a_tar_archive(tmp_path: Path, marker: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    content = _pickled("os.system", marker, 2)
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    _refused(lambda: load_checkpoint(file), marker, CheckpointError, file)


def test_further_pickles_in_the_archive_are_not_read(tmp_path: Path, marker: Path) -> None:
    file = write_model(tmp_path / "model", folds=(0,)) / "fold_0" / "checkpoint_final.pth"
    weights = load_checkpoint(file)["network_weights"]
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        for name in (f"{root}/evil.pkl", f"{root}/data/evil", f"{root}/../data.pkl"):
            archive.writestr(name, _pickled("os.system", marker, 2))
    assert list(load_checkpoint(file)["network_weights"]) == list(weights)
    assert not marker.exists()


def test_torchscript_is_refused(tmp_path: Path, marker: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/constants.pkl", _pickled("os.system", marker, 2))
        archive.writestr("archive/code/x.py", "import os")
        archive.writestr("archive/data.pkl", _pickled("os.system", marker, 2))
        archive.writestr("archive/version", "3\n")
    _refused(lambda: load_checkpoint(file), marker, CheckpointError, file)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24))
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError, match="is compressed, which torch never does"):
        load_checkpoint(file)
