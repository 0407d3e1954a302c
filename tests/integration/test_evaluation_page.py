"""The page on evaluation: its commands and its snippet are run, its table of metrics is what is written."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from helpers.commands import succeed

PAGE = (Path(__file__).parents[2] / "documentation" / "evaluation.md").read_text(encoding="utf-8")
LABELS = {"background": 0, "liver": 1, "tumour": 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the page names: two cases of anisotropic voxels, dataset.json and plans.json."""
    generator = np.random.default_rng(0)
    for folder in ("REFERENCES", "PREDICTIONS"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            image = SimpleITK.GetImageFromArray(generator.integers(0, 3, (4, 9, 8)).astype(np.uint8))
            image.SetSpacing((0.8, 0.8, 4.0))
            SimpleITK.WriteImage(image, str(tmp_path / folder / f"{case}.nii.gz"))
    dataset = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
    plans = {"plans_name": "nnUNetPlans", "configurations": {}, "image_reader_writer": "SimpleITKIO"}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_and_snippet(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    number = 0
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if kind == "python":
            exec(compile(block, "documentation", "exec"), {"__name__": "__main__"})
            assert capsys.readouterr().out.splitlines()[-1].endswith(" 2")
            continue
        for line in block.splitlines():
            command, *arguments = shlex.split(line)
            (place / "PREDICTIONS" / "summary.csv").unlink(missing_ok=True)
            succeed(command, *arguments, "-np", "0")
            wants_table = "--metrics" in arguments or "--csv" in arguments
            assert (place / "PREDICTIONS" / "summary.csv").exists() == wants_table
            number += 1
    assert number == 6


def test_every_metric_is_explained_and_no_other(place: Path) -> None:
    arguments = ["REFERENCES", "PREDICTIONS", "-l", "1", "2", "--metrics", "all", "-np", "0"]
    succeed("nnUNetv2_evaluate_simple", *arguments)
    with (place / "PREDICTIONS" / "summary.csv").open(newline="") as file:
        columns = set(next(csv.reader(file))) - {"case", "class", "nsd_tolerance_mm"}
    table = PAGE.split("## What the numbers are")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == columns
    additional = json.loads((place / "PREDICTIONS" / "summary.json").read_text())["additional_metrics"]
    for key in additional:
        assert f"`{key}`" in PAGE or key == "nsd_tolerance_mm"
