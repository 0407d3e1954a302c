"""The demo from raw images to a table and a picture, tiny; a second call finds everything done."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from nnunet_lite.cli.demo import demo_entry
from nnunet_lite.demo.pipeline import DemoSettings, format_table, run_demo
from nnunet_lite.utilities.files import load_json

TINY = DemoSettings(training_cases=5, test_cases=2, scale=0.6, epochs=1, iterations=2)


def test_whole_pipeline_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_raw", "/somewhere/else")
    results = run_demo(tmp_path, torch.device("cpu"), TINY)

    assert os.environ["nnUNet_raw"] == "/somewhere/else"
    assert [list(case["metrics"]) for case in results["metric_per_case"]] == [[1, 2], [1, 2]]
    assert load_json(tmp_path / "predictions" / "summary.json")["metric_per_case"]
    pictures = sorted(tmp_path.glob("*.png"))
    assert [file.stem for file in pictures] == ["demo_005", "demo_006"]
    assert np.ptp(imread(pictures[0])) > 0.5
    assert "mean foreground Dice" in capsys.readouterr().out

    model = next(tmp_path.glob("nnUNet_results/*/*/fold_0/checkpoint_final.pth"))
    kept = {file: file.stat().st_mtime_ns for file in (model, *tmp_path.rglob("*.b2nd"), *tmp_path.rglob("*.nii.gz"))}
    again = run_demo(tmp_path, torch.device("cpu"), TINY)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    np.testing.assert_equal(again["mean"], results["mean"])


def test_table_names_cases_structures_and_means():
    metrics = {1: {"Dice": 0.9}, 2: {"Dice": float("nan")}}
    case = {"prediction_file": "somewhere/demo_012.nii.gz", "metrics": metrics}
    table = format_table({"metric_per_case": [case], "mean": metrics, "foreground_mean": {"Dice": 0.91234}})
    rows = [line.split() for line in table.splitlines() if line]
    assert rows == [
        ["Dice", "organ", "core"],
        ["demo_012", "0.900", "nan"],
        ["mean", "0.900", "nan"],
        ["mean", "foreground", "Dice", "0.912"],
    ]


def test_a_device_that_is_not_here_is_one_line(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for flag in ("--device", "-device"):
        assert demo_entry(["--out", str(tmp_path), flag, "cuda"]) == 2
        assert "no CUDA GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_any_device_will_do(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr("nnunet_lite.demo.pipeline.run_demo", lambda _, device: chosen.append(device.type))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for flags in ([], ["-device", "auto"], ["--device", "cpu"]):
        assert demo_entry(["--out", str(tmp_path), *flags]) == 0
    assert chosen == ["cpu"] * 3


@pytest.mark.slow
def test_the_real_thing_segments_well(tmp_path):
    assert run_demo(tmp_path, torch.device("cpu"))["foreground_mean"]["Dice"] > 0.8
