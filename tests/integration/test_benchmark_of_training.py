"""benchmarks/training.py, on a machine without the packages that read images and draw pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Folders
from helpers import tiny_training

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ABSENT = ("SimpleITK", "skimage", "matplotlib", "nibabel", "tifffile", "imageio", "PIL", "pandas", "sklearn")

_CODE = """
import json, runpy, sys
sys.modules.update(dict.fromkeys({absent!r}))  # as if they were not installed
sys.path.insert(0, {folder!r})
sys.argv = ["training.py", *{arguments!r}]
runpy.run_path({folder!r} + "/training.py", run_name="__main__")
"""


def _run(arguments: list[str]) -> str:
    code = _CODE.format(absent=ABSENT, folder=str(BENCHMARKS), arguments=arguments)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_preprocessed_dataset(nnunet_folders: Folders, tmp_path: Path) -> None:
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    before = sorted(path for path in folder.rglob("*"))
    output = tmp_path / "figures.json"
    short = ["--iterations", "1", "--warm-up", "1", "--workers", "0", "--device", "cpu", "--precision", "float32"]
    said = _run(["--data", str(folder), "--configuration", "2d", *short, "--json", str(output)])
    assert "| 0 | " in said
    figures = json.loads(output.read_text())
    (result,) = figures["results"]
    assert all(result[part] > 0 for part in ("data", "network", "whole"))
    assert result["whole"] >= result["wait"]
    assert set(figures["phases"]) >= {"read", "augment", "forward", "backward", "update"}
    assert figures["machine"]["patch"] == [8, 8]
    assert sorted(folder.rglob("*")) == before, "nothing is written beside the data"


@pytest.mark.slow
@pytest.mark.parametrize("patch", [["16", "8"], ["16", "8", "8"]], ids=["2d", "3d"])
def test_synthetic_data(patch: list[str], tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    small = ["--features", "2", "--cases", "2", "--batch-size", "3", "--channels", "2", "--classes", "4"]
    short = ["--iterations", "1", "--warm-up", "1", "--workers", "0", "--device", "cpu", "--json", str(output)]
    _run(["--patch-size", *patch, *small, *short])
    machine = json.loads(output.read_text())["machine"]
    assert (machine["patch"], machine["batch"]) == ([int(edge) for edge in patch], 3)
