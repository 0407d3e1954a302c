"""Where large arrays wait between processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities import exchange_folder as module
from nnunet_lite.utilities.exchange_folder import exchange_folder, lies_in_memory

MOUNTS = "/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sdb /tmp/my\\040disk xfs rw 0 0\n"


@pytest.fixture(autouse=True)
def system_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("folder", "expected"), [("/tmp/x", True), ("/tmp", True), ("/tmpx", False), ("/tmp/my disk/x", False)]
)
def test_file_systems_that_lie_in_memory(folder: str, expected: bool) -> None:
    assert lies_in_memory(folder, MOUNTS) is expected


def test_it_lies_in_the_temporary_folder_and_is_gone_afterwards(system_folder: Path, tmp_path: Path) -> None:
    with exchange_folder(1, tmp_path / "out") as exchange:
        assert Path(exchange.path).parent == system_folder
    assert not list(system_folder.iterdir()) and not (tmp_path / "out").exists()


def test_it_lies_beside_the_results_where_the_temporary_folder_is_memory(
    system_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "lies_in_memory", lambda folder: system_folder in (Path(folder), Path(folder).parent))
    with exchange_folder(1, tmp_path / "out") as exchange:
        assert Path(exchange.path).parent == tmp_path / "out" and not exchange.in_memory
    assert not list((tmp_path / "out").iterdir())
    with exchange_folder(1, None) as exchange:
        assert Path(exchange.path).parent == system_folder and exchange.in_memory


def test_it_lies_where_there_is_room(system_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free", lambda place: 10 if place == system_folder else 100)
    for space, expected in ((5, system_folder), (50, tmp_path / "out"), (500, tmp_path / "out")):
        with exchange_folder(space, tmp_path / "out") as exchange:
            assert Path(exchange.path).parent == expected


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(system_folder: Path) -> None:
    code = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from nnunet_lite.utilities.exchange_folder import exchange_folder\n"
        "with exchange_folder() as e: print(e.path, flush=True); os.kill(os.getpid(), 9)"
    )
    left = subprocess.run([sys.executable, "-c", code, str(system_folder)], capture_output=True, text=True, check=False)
    assert Path(left.stdout.strip()).is_dir()
    with exchange_folder() as first, exchange_folder() as second:
        assert not Path(left.stdout.strip()).exists()
        assert Path(first.path).is_dir() and Path(second.path).is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(file))
    with pytest.raises(StorageError, match="is a file, expected a folder"), exchange_folder():
        pass
