"""Upstream's integration test with our commands, as the script beside this file runs it; its checks can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import make_dataset
from integration import upstream_integration
from integration.upstream_integration import CONFIGURATIONS, VARIANTS, Failure, Integration, Workplace

SCRIPT = Path(__file__).with_name("upstream_integration.py")


def source_of_cases(folder: Path, n: int = 24) -> Path:
    """Dataset004_Hippocampus where there is a shared folder, else a dataset that is made here."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    real = Path(os.environ.get("NNUNET_LITE_SHARED", beside)) / "data" / "Dataset004_Hippocampus"
    return real if real.is_dir() else make_dataset(folder, 4, n=n, shape=(24, 32, 24))


@pytest.mark.slow
@pytest.mark.parametrize("number", sorted(VARIANTS))
def test_four_configurations_in_five_folds(number: int, tmp_path: Path) -> None:
    source, work = source_of_cases(tmp_path / "source"), tmp_path / "work"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(SCRIPT), str(source), "--work", str(work), "--datasets", str(number), "--jobs", "2"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (work / "commands.txt").read_text().splitlines()
    assert sum("nnUNetv2_train " in line for line in lines) == 20
    assert f"Dataset{number} passed" in done.stdout


@pytest.fixture
def integration(tmp_path: Path) -> Integration:
    """A dataset of regions with an ignore label, nothing trained."""
    source = make_dataset(tmp_path / "source", 4, n=5, shape=(6, 8, 7))
    place = Workplace(tmp_path / "work", "cpu", "nnunet_lite", 1, 60)
    upstream_integration.make_dataset(source, place.raw, VARIANTS[996], 2)
    return Integration(place, VARIANTS[996], 2, CONFIGURATIONS)


def test_the_dataset_that_is_made(integration: Integration) -> None:
    assert (integration.cases, len(integration.test_cases)) == (["case_00", "case_01"], 3)
    document = json.loads((integration.raw / "dataset.json").read_text())
    labels = {"background": 0, "hippocampus": [1, 2], "posterior": 2, "ignore": 3}
    assert (document["labels"], document["regions_class_order"], document["numTraining"]) == (labels, [1, 2], 2)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(integration.raw / "labelsTr" / "case_00.nii.gz")))
    assert (array[1] == 3).all() and (array[2] == 3).all() and array[3].max() == 2


def test_plans_get_a_coarser_configuration_and_a_cascade(tmp_path: Path) -> None:
    architecture = {"arch_kwargs": {"n_stages": 3, "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]]}}
    full = {
        "architecture": architecture,
        "batch_size": 9,
        "median_image_size_in_voxels": [36.0, 50.0, 35.0],
        "patch_size": [20, 56, 40],
        "spacing": [1.0, 1.0, 1.0],
    }
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}))
    upstream_integration.add_lowres_and_cascade(file)
    configurations = json.loads(file.read_text())["configurations"]
    assert configurations["3d_lowres"]["patch_size"] == [20, 40, 28]
    assert configurations["3d_lowres"]["spacing"] == [1.25] * 3
    assert configurations["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    assert configurations["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8, 16]


def _predict(integration: Integration, folder: Path, value: int = 2, spacing: float = 1.0) -> None:
    """Predictions of the training cases with probabilities that say the same."""
    folder.mkdir(exist_ok=True)
    for case in integration.cases:
        image = sitk.ReadImage(str(integration.raw / "labelsTr" / f"{case}.nii.gz"))
        array = np.zeros_like(sitk.GetArrayFromImage(image))
        array[2] = value
        prediction = sitk.GetImageFromArray(array)
        prediction.CopyInformation(image)
        prediction.SetSpacing([spacing] * 3)
        sitk.WriteImage(prediction, str(folder / f"{case}.nii.gz"))
        probabilities = np.stack([array > 0, array > 1]).astype(np.float32)
        np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)
        (folder / f"{case}.pkl").touch()


def test_what_is_wrong_with_predictions_is_found(integration: Integration, tmp_path: Path) -> None:
    references, folder = integration.raw / "labelsTr", tmp_path / "predictions"

    def check() -> None:
        integration.check_predictions(folder, integration.cases, references, probabilities=True)

    _predict(integration, folder)
    check()
    _predict(integration, folder, value=3)
    with pytest.raises(Failure, match="values"):
        check()
    _predict(integration, folder, spacing=1.5)
    with pytest.raises(Failure, match="GetSpacing"):
        check()
    _predict(integration, folder)
    np.savez_compressed(folder / "case_01.npz", probabilities=np.zeros((2, 3, 3, 3)))
    with pytest.raises(Failure, match="shape"):
        check()
    _predict(integration, folder)
    (folder / "case_01.nii.gz").unlink()
    with pytest.raises(Failure, match="case_00"):
        check()


def test_a_command_that_fails_is_a_failure(integration: Integration) -> None:
    integration.place.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with pytest.raises(Failure, match="unrecognized|--no-such-flag"):
        integration.place.run("nnUNetv2_status --no-such-flag")
    assert "exit code 2" in integration.place.log.read_text()
