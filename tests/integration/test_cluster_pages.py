"""The commands of the pages on training and on clusters, run on a tiny dataset; a pretended Slurm runs its script."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Folders
from helpers import tiny_training
from helpers.commands import succeed

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
QUICK = ["--epochs", "1", "--iterations", "1", "-device", "cpu"]
BASH = shutil.which("bash")


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """The tiny dataset as number 4."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    plans = folder / "nnUNetPlans.json"
    plans.write_text(plans.read_text().replace(tiny_training.NAME, "Dataset004_Tiny"))
    folder.rename(folder.with_name("Dataset004_Tiny"))
    return nnunet_folders


def _blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (DOCUMENTATION / page).read_text(), re.MULTILINE | re.DOTALL)


def test_training_page(dataset: Folders) -> None:
    commands = [shlex.split(line) for block in _blocks("training.md", "bash") for line in block.splitlines()]
    assert len(commands) == 2
    for name, *arguments in commands:
        given = [flag for flag in ("--epochs", "--iterations") if flag in arguments]
        succeed(name, *arguments, *(QUICK[4:] if given else QUICK))
    folders = {path.name.split("__")[0] for path in (dataset.results / "Dataset004_Tiny").iterdir()}
    text = (DOCUMENTATION / "training.md").read_text()
    assert folders == {"nnUNetTrainer_e1_i1", "nnUNetTrainer_e1_i3_lr0.005_b3_s1_det"}
    assert f"`-tr {max(folders, key=len)}`" in text
    fold = dataset.results / "Dataset004_Tiny" / f"{max(folders, key=len)}__nnUNetPlans__2d" / "fold_0"
    table = text.split("## What is written where")[1].split("\n## ")[0]
    for file in (path.name for path in fold.iterdir()):
        kind = "training_log_*.txt" if file.startswith("training_log") else file
        assert kind in table
    import torch

    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def _pattern(line: str) -> str:
    """A line of a log without its numbers, units of memory and speed, and time stamp."""
    line = re.sub(r"^[\d-]+ [\d:.]+: ", "", line).strip()
    line = re.sub(r"nan|\d[\d.:e-]*|[KMG]iB", "#", line)
    return line.replace("# s per iteration", "# iterations/s")


def test_the_log_of_the_training_page_is_what_is_printed(dataset: Folders) -> None:
    succeed("nnUNetv2_train", "4", "2d", "0", "--epochs", "3", "--iterations", "1", "-device", "cpu")
    (file,) = dataset.results.rglob("training_log_*.txt")
    log = [_pattern(line) for line in file.read_text().splitlines()]
    epoch = log[log.index(_pattern("Epoch 1")) :]
    (sample, _) = _blocks("training.md", "text")
    assert len(sample.splitlines()) == 8
    assert [line for line in sample.splitlines() if _pattern(line) not in epoch] == []


def test_splits_of_the_training_page_have_the_right_form(dataset: Folders, tmp_path: Path) -> None:
    from nnunet_lite.training.splits import do_split

    (block,) = _blocks("training.md", "json")
    file = tmp_path / "splits_final.json"
    file.write_text(block)
    cases = sorted({case for split in json.loads(block) for case in split["train"] + split["val"]})
    assert do_split(1, cases, file) == (["hippocampus_003", "hippocampus_004"], ["hippocampus_001"])


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands called nnUNetv2_train and scontrol that note how they were called; the first one obeys SIGUSR1."""
    folder = tmp_path / "bin"
    folder.mkdir()
    train = (
        f"#!{sys.executable}\n"
        "import os, signal, sys, time\n"
        f"note = open({str(tmp_path / 'calls')!r}, 'a')\n"
        "def stop(*_):\n    time.sleep(0.5)\n    note.write('saved\\n')\n    note.flush()\n    os._exit(85)\n"
        "signal.signal(signal.SIGUSR1, stop)\n"
        "note.write(' '.join(['train', os.environ.get('CUDA_VISIBLE_DEVICES', '-'), *sys.argv[1:]]) + '\\n')\n"
        "note.flush()\n"
        "waits = os.environ['WAITS']\n"
        "time.sleep(60 if waits == 'long' else 0)\n"
        "if waits == 'thrice' and sum(1 for _ in open(note.name)) < 3:\n    sys.exit(85)\n"
        "sys.exit(int(os.environ.get('ENDS', 0)))\n"
    )
    (folder / "nnUNetv2_train").write_text(train)
    (folder / "scontrol").write_text(f"#!/bin/sh\necho scontrol \"$@\" >> '{tmp_path / 'calls'}'\n")
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "calls"


def _script(tmp_path: Path) -> Path:
    (block,) = _blocks("resuming-and-clusters.md", "sbatch")
    script = tmp_path / "train.sbatch"
    script.write_text(block)
    return script


@pytest.mark.skipif(BASH is None or os.name != "posix", reason="a bash script")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_slurm_script_saves_and_requeues(
    tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("WAITS", "long")
    job = subprocess.Popen([BASH, str(_script(tmp_path))])
    deadline = time.monotonic() + 30
    while not (stand_ins.exists() and "train" in stand_ins.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(number)  # to the script alone, as B: says
    assert job.wait(30) == 85
    assert stand_ins.read_text().splitlines() == ["train - 4 3d_fullres 3 --npz --c", "saved", "scontrol requeue 70_3"]


@pytest.mark.skipif(BASH is None or os.name != "posix", reason="a bash script")
@pytest.mark.parametrize("code", [0, 2])
def test_slurm_script_ends_as_the_training_does(
    tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("WAITS", "no")
    monkeypatch.setenv("ENDS", str(code))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert subprocess.run([BASH, str(_script(tmp_path))], check=False).returncode == code
    assert "scontrol" not in stand_ins.read_text()


@pytest.mark.skipif(BASH is None or os.name != "posix", reason="a bash script")
def test_the_other_commands_of_the_page(tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simple, loop, folds = _blocks("resuming-and-clusters.md", "bash")
    monkeypatch.setenv("WAITS", "thrice")
    subprocess.run([BASH, "-c", loop], check=True)
    assert stand_ins.read_text().splitlines() == ["train - 4 2d 0 --c"] * 3
    stand_ins.unlink()
    monkeypatch.setenv("WAITS", "no")
    subprocess.run([BASH, "-c", folds], check=True)
    assert sorted(stand_ins.read_text().splitlines()) == [
        "train 0 4 2d 0 --npz --c", "train 1 4 2d 1 --npz --c",
    ]  # fmt: skip
    assert simple == "nnUNetv2_train 4 2d 0 --c\n"


def test_what_the_page_starts_and_continues(dataset: Folders, capfd: pytest.CaptureFixture[str]) -> None:
    simple = shlex.split(_blocks("resuming-and-clusters.md", "bash")[0])
    succeed(simple[0], *simple[1:], *QUICK)
    succeed(simple[0], *simple[1:], *QUICK)
    assert "Continuing from" in capfd.readouterr().out
