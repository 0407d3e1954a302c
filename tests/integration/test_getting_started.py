"""The walk of getting-started.md, command by command, on a small copy of the demo's dataset; the README's commands."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.commands import ENTRIES, run, succeed
from helpers.pages import blocks

from nnunet_lite.demo.dataset import make_dataset
from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

QUICK = {  # flags that keep everything in this process
    "nnUNetv2_check_dataset": ["-np", "0"],
    "nnUNetv2_plot_overlay_pngs": ["-np", "1"],
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_predict": ["-npp", "0", "-nps", "0", "--disable_tta"],
    "nnUNetv2_find_best_configuration": ["-np", "1"],
}
SHORT = {"--epochs 6": "--epochs 1", "--iterations 50": "--iterations 1", "e6_i50": "e1_i1", "auto": "cpu"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with demo/nnUNet_raw as nnUNetv2_demo leaves it, smaller; networks of a few features."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setattr(ExperimentPlanner, "UNet_base_num_features", 2)
    monkeypatch.setattr(nnUNetTrainer, "num_val_iterations_per_epoch", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "nnUNet_raw").mkdir(parents=True)
    make_dataset(tmp_path / "demo" / "nnUNet_raw", 5, 1, 0.35)
    return tmp_path


def _run(line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run one line; returns its command."""
    for given, shorter in SHORT.items():
        line = line.replace(given, shorter)
    command, *arguments = shlex.split(os.path.expandvars(line), comments=True)
    if command == "export":
        for setting in arguments:
            monkeypatch.setenv(*setting.split("="))
    elif command in ENTRIES:
        succeed(command, *arguments, *QUICK.get(command, []))
    else:
        assert command == "nnUNetv2_demo", line  # which tests/demo runs
    return command


@pytest.mark.slow
def test_the_walk(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for block in blocks("getting-started.md", "bash"):
        for line in block.lines:
            capsys.readouterr()
            command = _run(line, monkeypatch)
            said[command] = capsys.readouterr().out
    assert len(said) == 12
    assert "Dataset999_Demo: 5 cases, no faults" in said["nnUNetv2_check_dataset"]
    assert (place / "pictures" / "demo_000.png").is_file()
    results = place / "walk" / "nnUNet_results" / "Dataset999_Demo"
    assert (results / "inference_instructions.txt").is_file()
    assert len(list(results.glob("nnUNetTrainer_e1_i1__*/fold_*/validation/*.npz"))) == 5
    assert json.loads((place / "predictions" / "summary.json").read_text())["metric_per_case"]
    first, again = (place / folder / "demo_005.nii.gz" for folder in ("predictions", "predictions_elsewhere"))
    assert first.read_bytes() == again.read_bytes()
    assert "***Run inference like this:***" in said["nnUNetv2_find_best_configuration"]


def test_what_the_walk_shows_of_dataset_json(place: Path) -> None:
    (block,) = blocks("getting-started.md", "json")
    real = json.loads(next((place / "demo").rglob("dataset.json")).read_text())
    shown = json.loads(block.text)
    assert {**shown, "numTraining": 5} == {key: real[key] for key in shown}


def test_the_commands_of_the_readme(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = place / "demo" / "nnUNet_raw" / "Dataset999_Demo"
    shutil.copytree(demo, place / "raw" / "Dataset004_Hippocampus")
    for name in ("imagesTs", "labelsTs"):
        shutil.copytree(demo / name, place / name)
    short = ["--epochs", "1", "--iterations", "1", "-device", "cpu"]
    for block in blocks("README.md", "bash"):
        for line in block.lines:
            command, *arguments = shlex.split(line, comments=True)
            if command == "export":
                for variable, folder in zip(arguments, ("raw", "preprocessed", "results"), strict=True):
                    monkeypatch.setenv(variable.split("=")[0], str(place / folder))
                continue
            if command == "nnUNetv2_predict":
                arguments += ["-tr", "nnUNetTrainer_e1_i1", "-device", "cpu"]
            assert run(command, *arguments, *(short if "train" in command else QUICK.get(command, []))) == 0, line
    (model,) = (place / "results").glob("*/*")
    (snippet,) = blocks("README.md", "python")
    shutil.rmtree("predictions")
    names = {"__name__": "__main__", "model_folder": str(model)}
    exec(compile(snippet.text.replace('"cuda"', '"cpu"'), "README.md", "exec"), names)
    assert list(Path("predictions").glob("*.nii.gz"))
