"""The commands of the page on several GPUs, run as they stand, with CPU processes in place of GPUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Folders
from helpers import tiny_training

PAGE = Path(__file__).parents[2] / "documentation" / "multi-gpu.md"
SHORT = "-device cpu --epochs 2 --iterations 2 --seed 1 --precision float32"
TRAIN = f"""#!/bin/bash
arguments=" $* "
arguments="${{arguments/ 4 3d_fullres / 777 2d }}"
exec {sys.executable} -m nnunet_lite.cli.training $arguments {SHORT}
"""
TORCHRUN = f"""#!/bin/bash
arguments=" $* "
arguments="${{arguments/--nproc_per_node 4/--nproc_per_node 1}}"
exec {sys.executable} -m torch.distributed.run ${{arguments/node1/localhost}}
"""


@pytest.fixture
def blocks(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The page's blocks of commands; the commands found first on the PATH train a tiny dataset briefly."""
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("nnUNetv2_train", TRAIN), ("torchrun", TORCHRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _curve(folders: Folders, fold: int) -> list[float]:
    (file,) = folders.results.rglob(f"fold_{fold}/metrics.jsonl")
    return [json.loads(line)["train_losses"] for line in file.read_text().splitlines()]


def _has_validated(folders: Folders, fold: int) -> bool:
    return len(list(folders.results.rglob(f"fold_{fold}/validation/summary.json"))) == 1


def _start(block: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["bash", "-e", "-c", block])


def _forget(folders: Folders) -> None:
    for file in folders.results.rglob("*.*"):
        if file.is_file():
            file.unlink()


@pytest.mark.slow
def test_commands_of_the_page(blocks: list[str], nnunet_folders: Folders) -> None:
    one_fold_per_gpu, two_gpus, torchrun, machines, continued = blocks
    assert _start(one_fold_per_gpu).wait() == 0
    assert _has_validated(nnunet_folders, 0)
    assert _has_validated(nnunet_folders, 1)
    curve = _curve(nnunet_folders, 0)
    for starts in ([two_gpus], [torchrun], [machines, machines]):
        _forget(nnunet_folders)
        assert [process.wait() for process in [_start(block) for block in starts]] == [0] * len(starts)
        assert _curve(nnunet_folders, 0) == pytest.approx(curve, abs=1e-5)
        assert _has_validated(nnunet_folders, 0)
    assert _start(continued).wait() == 0
    assert len(_curve(nnunet_folders, 1)) == 2
