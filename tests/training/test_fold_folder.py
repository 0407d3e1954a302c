"""Which checkpoint is continued, and that a fold belongs to one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lite.exceptions import ArgumentError, CheckpointError
from nnunet_lite.training.fold_folder import (
    checkpoints_to_continue,
    first_readable,
    in_use,
    put_back_on_failure,
    set_aside,
)

_HOLDER = """
import os, sys, time
from nnunet_lite.training.fold_folder import in_use
with in_use(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:
        os.write(1, f"child {os.getpid()}\\n".encode())
        time.sleep(600)
    os.write(1, b"holds\\n")
    sys.stdin.readline()
"""


def _hold(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    return holder


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_final_comes_first_then_the_younger(tmp_path: Path) -> None:
    assert checkpoints_to_continue(tmp_path) == []
    for age, name in enumerate(("latest", "best")):
        (tmp_path / f"checkpoint_{name}.pth").touch()
        os.utime(tmp_path / f"checkpoint_{name}.pth", (1000 - age, 1000 - age))
    assert [file.stem[11:] for file in checkpoints_to_continue(tmp_path)] == ["latest", "best"]
    (tmp_path / "checkpoint_final.pth").touch()
    (tmp_path / "previous_checkpoint_latest.pth").touch()
    assert [file.stem[11:] for file in checkpoints_to_continue(tmp_path)] == ["final", "latest", "best"]


def test_damaged_checkpoints_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / "checkpoint_latest.pth", tmp_path / "checkpoint_best.pth"]

    def read(file: Path) -> None:
        if file in damaged:
            raise CheckpointError(f"{file} is damaged")

    damaged = files[:1]
    assert first_readable(files, read) == files[1]
    assert "checkpoint_latest.pth is damaged" in caplog.text
    damaged = files
    with pytest.raises(CheckpointError, match=r"checkpoint_latest.pth, checkpoint_best.pth cannot be read; restore"):
        first_readable(files, read)
    assert first_readable([], read) is None


@pytest.mark.skipif(os.name != "posix", reason="file locks of POSIX")
def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "fold_0"
    holder = _hold(folder)
    assert holder.stdout.readline() == "holds\n"
    with pytest.raises(ArgumentError, match=f"fold_0 is in use by process {holder.pid} on "), in_use(folder):
        pass
    holder.communicate("\n")
    assert _files(tmp_path) == []
    with in_use(folder):
        (folder / "checkpoint").touch()
    assert _files(tmp_path) == ["checkpoint", "fold_0", "model"]


@pytest.mark.skipif(os.name != "posix", reason="file locks of POSIX")
def test_a_kill_frees_the_fold_although_a_child_lives_on(tmp_path: Path) -> None:
    holder = _hold(tmp_path, "fork")
    lines = [holder.stdout.readline().split(), holder.stdout.readline().split()]
    child = next(int(line[1]) for line in lines if line[0] == "child")
    try:
        holder.kill()
        holder.wait()
        assert ".in_use" in _files(tmp_path)
        with in_use(tmp_path):
            assert (tmp_path / ".in_use").read_text().startswith(f"process {os.getpid()} on ")
    finally:
        os.kill(child, signal.SIGKILL)
    assert _files(tmp_path) == []


def test_without_locks_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with in_use(tmp_path):
        assert _files(tmp_path) == [".in_use"]


@pytest.mark.parametrize("saves", [False, True])
def test_checkpoints_are_put_back_unless_a_new_one_follows(tmp_path: Path, saves: bool) -> None:
    for name in ("final", "best"):
        (tmp_path / f"checkpoint_{name}.pth").write_text(name)
    with pytest.raises(CheckpointError), put_back_on_failure(tmp_path):
        set_aside(tmp_path)
        if saves:
            (tmp_path / "checkpoint_latest.pth").write_text("new")
        raise CheckpointError("x")
    expected = {"checkpoint_final.pth": "final", "checkpoint_best.pth": "best"}
    if saves:
        expected = {f"previous_{name}": text for name, text in expected.items()} | {"checkpoint_latest.pth": "new"}
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == expected
