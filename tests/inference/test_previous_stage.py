"""The first stage of a cascade at prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.commands import complaint
from helpers.models import write_model

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.previous_stage import find_previous_stage, previous_stage_output

CASCADE, LOWRES = "3d_cascade_fullres", "3d_lowres"


def _model(folder: Path, name: str = f"nnUNetTrainer__nnUNetPlans__{CASCADE}") -> Path:
    return write_model(folder / name, CASCADE, folds=(0,))


def test_beside_the_cascade(tmp_path: Path) -> None:
    cascade = _model(tmp_path)
    with pytest.raises(ArgumentError, match=r"there is no .*nnUNetTrainer__nnUNetPlans__3d_lowres; predict the same"):
        find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth")
    first = write_model(tmp_path / f"nnUNetTrainer__nnUNetPlans__{LOWRES}", LOWRES)
    assert find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth") == first
    assert find_previous_stage(cascade, LOWRES, None, "checkpoint_final.pth") == first


def test_of_the_trainer_it_learned_from(tmp_path: Path) -> None:
    cascade = _model(tmp_path)
    for trainer in ("nnUNetTrainer", "nnUNetTrainer_20epochs"):
        write_model(tmp_path / f"{trainer}__nnUNetPlans__{LOWRES}", LOWRES)
    file = cascade / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["nnunet_lite"] = {"hyperparameters": {"previous_stage_trainer": "nnUNetTrainer_20epochs"}}
    torch.save(checkpoint, file)
    found = find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth")
    assert found.name == f"nnUNetTrainer_20epochs__nnUNetPlans__{LOWRES}"


def test_a_folder_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"does not lie beside its first; .* -prev_stage_predictions"):
        find_previous_stage(_model(tmp_path, "my_cascade"), LOWRES, [0], "checkpoint_final.pth")


@pytest.mark.parametrize(
    ("output", "expected"), [("out", "out/predicted_3d_lowres"), ("a/b.nii.gz", "a/predicted_3d_lowres")]
)
def test_where_its_predictions_go(output: str, expected: str) -> None:
    assert previous_stage_output(output, ".nii.gz", LOWRES) == Path(expected)


def test_shared_work_needs_its_predictions(
    tmp_path: Path, nnunet_folders: object, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "nnUNet_results" / "Dataset001_X"
    _model(results)
    write_model(results / f"nnUNetTrainer__nnUNetPlans__{LOWRES}", LOWRES)
    monkeypatch.setattr("nnunet_lite.utilities.device.set_num_threads", lambda _: None)
    flags = ("-i", tmp_path, "-o", tmp_path / "out", "-d", 1, "-c", CASCADE, "-f", 0, "-device", "cpu", "-num_parts", 2)
    line = complaint(capfd, "nnUNetv2_predict", *flags)
    assert "-num_parts 2: predict the images with 3d_lowres first" in line
    assert not (tmp_path / "out").exists()
