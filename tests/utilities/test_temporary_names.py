"""What killed processes left is told from what others are writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lite.utilities import temporary_names
from nnunet_lite.utilities.files import atomic_path
from nnunet_lite.utilities.temporary_names import remove_abandoned_files, temporary_path

WRITE_AND_DIE = """
import os, sys
from nnunet_lite.utilities.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os._exit(1)
"""


def test_files_of_the_dead_go_those_of_the_living_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path / "a.nii.gz")], timeout=60)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".") and left.name.endswith(".tmp.a.nii.gz")
    others = [tmp_path / ".0123abcd.tmp.b.nii.gz", tmp_path / "c.nii.gz", tmp_path / ".hidden"]
    for file in others:
        file.touch()
    with atomic_path(tmp_path / "d.nii.gz") as own:
        own.write_text("whole")
        with monkeypatch.context() as patch:
            patch.setattr(temporary_names, "_machine", lambda: "00000000")  # another one's: nobody here can tell
            remove_abandoned_files(tmp_path)
        assert left.exists()
        remove_abandoned_files(tmp_path)
        assert not left.exists() and own.exists()
    assert {file.name for file in tmp_path.iterdir()} == {*(file.name for file in others), "d.nii.gz"}


def test_names_differ_and_lie_beside_the_target(tmp_path: Path) -> None:
    names = {temporary_path(tmp_path / "a.npz") for _ in range(20)}
    assert len(names) == 20 and all(name.parent == tmp_path and name.suffix == ".npz" for name in names)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    remove_abandoned_files(tmp_path / "nowhere")


@pytest.mark.parametrize("letter", ["x", "患"])
def test_names_as_long_as_the_system_allows(tmp_path: Path, letter: str) -> None:
    target = tmp_path / (letter * (248 // len(letter.encode())) + ".nii.gz")
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(f"{letter}.nii.gz")
        temporary.write_text("whole")
    assert target.read_text() == "whole"
