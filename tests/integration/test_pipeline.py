"""From raw images to evaluated predictions through the commands, 2d and 3d, with a user's own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import half_written, succeed
from helpers.datasets import make_dataset
from skimage.io import imread

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
FOLD_FILES = {"checkpoint_best.pth", "checkpoint_final.pth", "debug.json", "progress.png", "validation"}
METRICS = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}


@pytest.fixture
def quick(nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fresh folders, the tiny trainers, and few processes."""
    monkeypatch.setenv("nnUNet_extTrainer", str(HELPERS / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    return nnunet_folders


def _read(file: Path) -> np.ndarray:
    return imread(file) if file.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def _run_pipeline(folders: Any, dataset: Path, configuration: str, ending: str, classes: list[str]) -> Path:
    """Everything, then the checks that hold for any dataset; returns the folder of predictions."""
    number = int(dataset.name[7:10])
    succeed(
        "nnUNetv2_plan_and_preprocess",
        "-d",
        number,
        "-c",
        configuration,
        "-np",
        2,
        "-npfp",
        2,
        "--no_pbar",
        "--verify_dataset_integrity",
    )
    succeed("nnUNetv2_train", number, configuration, 0, "-tr", "TinyTrainer", "-device", "cpu", "--npz")
    base = folders.results / dataset.name / f"TinyTrainer__nnUNetPlans__{configuration}"
    assert all((base / name).exists() for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"))
    fold = {file.name for file in (base / "fold_0").iterdir()}
    assert fold >= FOLD_FILES
    assert any(name.startswith("training_log_") for name in fold)
    assert "checkpoint_latest.pth" not in fold

    splits = json.loads((folders.preprocessed / dataset.name / "splits_final.json").read_text())
    validation = {file.name for file in (base / "fold_0" / "validation").iterdir()}
    expected = {f"{case}{part}" for case in splits[0]["val"] for part in (ending, ".npz", ".pkl")}
    assert expected | {"summary.json"} <= validation

    out = dataset / "predictions"
    succeed(
        "nnUNetv2_predict",
        "-i",
        dataset / "imagesTs",
        "-o",
        out,
        "-d",
        number,
        "-c",
        configuration,
        "-f",
        0,
        "-tr",
        "TinyTrainer",
        "-device",
        "cpu",
        "-npp",
        1,
        "-nps",
        1,
        "--disable_progress_bar",
    )
    references = sorted((dataset / "labelsTs").iterdir())
    for reference in references:
        assert _read(out / reference.name).shape == _read(reference).shape
    succeed(
        "nnUNetv2_evaluate_folder",
        dataset / "labelsTs",
        out,
        "-djfile",
        base / "dataset.json",
        "-pfile",
        base / "plans.json",
        "-np",
        1,
    )
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["foreground_mean"]) == METRICS
    assert list(summary["mean"]) == classes
    assert len(summary["metric_per_case"]) == len(references)
    assert half_written(folders.preprocessed) + half_written(folders.results) == []
    return out


def test_3d_fullres(quick: Any) -> None:
    dataset = make_dataset(quick.raw, n=5, n_test=2, shape=(10, 20, 18), spacing=(2.5, 1, 1.5), channels=("CT", "T2"))
    out = _run_pipeline(quick, dataset, "3d_fullres", ".nii.gz", ["1", "2"])
    predicted = sitk.ReadImage(str(out / "test_00.nii.gz"))
    image = sitk.ReadImage(str(dataset / "imagesTs" / "test_00_0000.nii.gz"))
    assert predicted.GetSpacing() == image.GetSpacing()
    assert predicted.GetOrigin() == image.GetOrigin()
    assert predicted.GetDirection() == image.GetDirection()


def test_2d_regions_with_ignore_label(quick: Any) -> None:
    dataset = make_dataset(
        quick.raw, n=5, n_test=2, shape=(36, 32), channels=("gray",), file_ending=".png", regions=True, ignore=True
    )
    out = _run_pipeline(quick, dataset, "2d", ".png", ["(1, 2)", "2"])
    assert set(np.unique(_read(out / "test_00.png"))) <= {0, 1, 2}


def test_rerunning_resumes(quick: Any) -> None:
    """Preprocessing and prediction leave alone what is done."""
    dataset = make_dataset(quick.raw, n=3, shape=(8, 12, 12))
    command = ("nnUNetv2_plan_and_preprocess", "-d", 901, "-c", "3d_fullres", "-np", 0, "-npfp", 0, "--no_pbar")
    succeed(*command)
    folder = quick.preprocessed / dataset.name / "nnUNetPlans_3d_fullres"
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    (folder / "case_01_seg.b2nd").unlink()
    succeed(*command)
    after = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(after) == set(before)
    assert {name for name in before if after[name] != before[name]} <= {name for name in before if "case_01" in name}
    assert after["case_01_seg.b2nd"] != before["case_01_seg.b2nd"]
