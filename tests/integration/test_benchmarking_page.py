"""The commands of documentation/benchmarking.md, made small; its flags exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import Folders
from helpers import tiny_training

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "documentation" / "benchmarking.md").read_text(encoding="utf-8")
SMALL = {"128": "8", "12": "0", "4": "0"}
SHORT = ["--iterations", "1", "--warm-up", "1", "--device", "cpu", "--features", "2", "--cases", "1"]


def test_commands(nnunet_folders: Folders) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    commands = re.findall(r"^python (benchmarks/training\.py .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2 == PAGE.count("```bash\n")
    for command in commands:
        script, *arguments = shlex.split(
            os.path.expandvars(command.replace("Dataset004_Hippocampus", tiny_training.NAME))
        )
        arguments = [SMALL.get(argument, argument) for argument in arguments]
        run = subprocess.run(
            [sys.executable, str(ROOT / script), *arguments, *SHORT],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "nnUNet_n_proc_DA": "0"},
        )
        assert run.returncode == 0, run.stderr
        header = re.search(r"^\| workers .*\|$", PAGE, re.MULTILINE)
        assert header is not None
        assert header.group() in run.stdout


def test_flags() -> None:
    said = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "training.py"), "-h"], capture_output=True, text=True, check=True
    ).stdout
    table = re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE)
    assert len(table) == 8
    assert all(flag in said for flag in table)


def test_lines_of_the_log_are_those_of_the_code() -> None:
    source = (ROOT / "nnunet_lite" / "training" / "numerical_faults.py").read_text(encoding="utf-8")
    line = re.search(r"^Epoch 12.*\): (.*)$", PAGE, re.MULTILINE)
    assert line is not None
    assert line.group(1) in source
