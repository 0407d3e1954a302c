"""Folders that replace others: a process killed at any step loses neither."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lite.utilities.replaced_folders import replace_folder, restore_replaced
from nnunet_lite.utilities.temporary_names import remove_abandoned_files

KILLED = """
import os, signal, sys
from pathlib import Path
from nnunet_lite.utilities import replaced_folders
rename, left = Path.rename, int(sys.argv[2])
def renamed(self, target):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)
Path.rename = renamed
folder = Path(sys.argv[1])
replaced_folders.replace_folder(folder / "new", folder / "model")
"""


def make(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "weights").write_text(content)
    return folder


def content_of(folder: Path) -> dict[str, str]:
    return {entry.name: (entry / "weights").read_text() for entry in folder.iterdir()}


def test_the_new_takes_the_place_of_the_old(tmp_path: Path) -> None:
    replace_folder(make(tmp_path / "new", "1"), tmp_path / "model")
    replace_folder(make(tmp_path / "new", "2"), tmp_path / "model")
    assert content_of(tmp_path) == {"model": "2"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(
    ("renames", "left", "then"),
    [
        (0, {"model": "old", "new": "new"}, {"model": "old", "new": "new"}),
        (1, {"model.replaced": "old", "new": "new"}, {"model": "old", "new": "new"}),
        (2, {"model.replaced": "old", "model": "new"}, {"model.replaced": "old", "model": "new"}),
    ],
)
def test_a_killed_process_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, renames: int, left: dict[str, str], then: dict[str, str]
) -> None:
    make(tmp_path / "model", "old")
    make(tmp_path / "new", "new")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(renames)], check=False)
    assert killed.returncode == -9
    remove_abandoned_files(tmp_path)
    assert content_of(tmp_path) == left
    with caplog.at_level(logging.WARNING):
        assert restore_replaced(tmp_path / "model") == (renames == 1)
    assert content_of(tmp_path) == then and bool(caplog.messages) == (renames > 0)


def test_what_was_moved_aside_before_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "model.replaced", "somebody's")
    make(tmp_path / "model", "old")
    replace_folder(make(tmp_path / "new", "new"), tmp_path / "model")
    assert content_of(tmp_path) == {"model.replaced": "somebody's", "model": "new"}
    make(tmp_path / "model.replaced_2", "newer")
    (tmp_path / "model").rename(tmp_path / "other")
    assert restore_replaced(tmp_path / "model")
    assert content_of(tmp_path) == {"model.replaced": "somebody's", "model": "newer", "other": "new"}


def test_a_new_one_that_is_missing_brings_the_old_one_back(tmp_path: Path) -> None:
    make(tmp_path / "model", "old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "new", tmp_path / "model")
    assert content_of(tmp_path) == {"model": "old"}
