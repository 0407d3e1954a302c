"""A cascade and its previous stage: whose predictions it learns from, and what is said where they are missing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Folders
from helpers import cascade_training, tiny_training
from helpers.cascade_training import CASCADE, LABELS_AND_IGNORE, LOWRES, REGIONS, REGIONS_AND_IGNORE, make, train

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training import validation
from nnunet_lite.training.previous_stage import take_previous_stage_from

PART = "nnUNetTrainer_e1_i1_s1"


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    evaluate = validation.compute_metrics_on_folder
    monkeypatch.setattr(validation, "compute_metrics_on_folder", partial(evaluate, num_processes=0))
    return cascade_training.write_dataset(nnunet_folders.preprocessed)


def _predict_all(results: Path, part: str, shape: tuple[int, ...] = (10, 16, 14)) -> Path:
    folder = results / tiny_training.NAME / f"{part}__nnUNetPlans__{LOWRES}" / "predicted_next_stage" / CASCADE
    folder.mkdir(parents=True)
    for case in tiny_training.CASES:
        nnUNetDatasetBlosc2.save_seg(np.ones(shape, np.uint8), str(folder / case))
    return folder


def _complaint(trainer: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        trainer.on_train_start()
    assert not Path(trainer.output_folder, "checkpoint_latest.pth").exists()
    return str(caught.value)


def test_both_stages(dataset: Path) -> None:
    for fold in (0, 1):
        train(LOWRES, fold)
    cascade = make(CASCADE, 0)
    cascade.on_train_start()
    assert cascade.network.encoder.stages[0][0].convs[0].conv.in_channels == 1 + 2
    batch = next(cascade.dataloader_train)
    assert batch["data"].shape[1] == 3
    assert set(np.unique(batch["data"][:, 1:])) <= {0, 1}
    finished = train(CASCADE, 0)
    assert Path(finished.output_folder, "validation", "summary.json").is_file()


def _command(fold: str, flags: str = "--epochs 1 --iterations 1 --seed 1") -> str:
    return f"nnUNetv2_train {tiny_training.NAME} {LOWRES} {fold} -device cpu {flags}".rstrip()


def test_nothing_predicted_yet_names_the_trainings_with_their_flags(dataset: Path) -> None:
    text = _complaint(make(CASCADE, 0))
    assert f"{CASCADE} needs a prediction of {LOWRES} for each of its 5 cases, but 5 are missing" in text
    assert text.endswith(f"make them: for fold in 0 1; do {_command('$fold')}; done")
    chosen = make(CASCADE, 0, lr=0.5, batch_size=3, deterministic=True)
    flags = "--epochs 1 --iterations 1 --lr 0.5 --batch-size 3 --seed 1 --deterministic"
    assert _complaint(chosen).endswith(f"do {_command('$fold', flags)}; done")


def test_a_finished_fold_only_needs_its_validation(dataset: Path) -> None:
    finished = make(LOWRES, 1)
    finished.run_training()
    folder = _predict_all(dataset.parents[1] / "nnUNet_results", PART)
    (folder / "case_1.b2nd").unlink()
    text = _complaint(make(CASCADE, 0))
    assert "1 are missing" in text and "(case_1)" in text
    assert text.endswith(f"make them: {_command('1')} --val")
    (folder / "case_4.b2nd").unlink()
    assert _complaint(make(CASCADE, 0)).endswith(f"make them: {_command('0')}; {_command('1')} --val")


def test_a_case_that_always_trains_is_predicted_by_fold_all(dataset: Path) -> None:
    cases = list(tiny_training.CASES)
    splits = [{"train": cases[1:], "val": cases[:1]}]
    (dataset / "splits_final.json").write_text(json.dumps(splits))
    assert f"for fold in 0 all; do {_command('$fold')}; done" in _complaint(make(CASCADE, 0))


def test_a_previous_stage_of_a_trainer_that_has_none(dataset: Path) -> None:
    trainer = make(CASCADE, 0)
    take_previous_stage_from(trainer, "nnUNetTrainer_20epochs_e1_lr1e-05_det")
    text = _complaint(trainer)
    name = f"nnUNetTrainer_20epochs_e1_lr1e-05_det__nnUNetPlans__{LOWRES}"
    folder = dataset.parents[1] / "nnUNet_results" / tiny_training.NAME / name
    assert text.startswith(
        "--previous-stage-trainer nnUNetTrainer_20epochs_e1_lr1e-05_det: "
        f"there is no {folder}; no other trainer has one; make it: for fold in 0 1; do "
    )
    command = _command("$fold", "--epochs 1 --lr 1e-05 --deterministic")
    assert command.replace("-device", "-tr nnUNetTrainer_20epochs -device") in text
    for other in ("nnUNetTrainer_20epochs", "Other"):
        _predict_all(dataset.parents[1] / "nnUNet_results", other)
    assert "; give one of those there are (nnUNetTrainer_20epochs, Other), or make it: " in _complaint(trainer)


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_predictions_of_another_size_or_damaged(dataset: Path, content: bytes | None) -> None:
    folder = _predict_all(dataset.parents[1] / "nnUNet_results", PART)
    if content is None:
        nnUNetDatasetBlosc2.save_seg(np.ones((5, 8, 7), np.uint8), str(folder / "case_2"))
    else:
        (folder / "case_2.b2nd").write_bytes(content)
    text = _complaint(make(CASCADE, 0))
    assert "1 predictions are damaged, or not of the size" in text and "(case_2)" in text
    assert "delete them, then make them: nnUNetv2_train" in text


def test_the_previous_stage_of_another_trainer(dataset: Path) -> None:
    folder = _predict_all(dataset.parents[1] / "nnUNet_results", "nnUNetTrainer_20epochs")
    alternative = "take those of another trainer: --previous-stage-trainer nnUNetTrainer_20epochs; or make them: for"
    assert alternative in _complaint(make(CASCADE, 0))
    trainer = make(CASCADE, 0)
    take_previous_stage_from(trainer, "nnUNetTrainer_20epochs")
    assert trainer.folder_with_segs_from_previous_stage == str(folder)
    trainer.run_training()
    debug = json.loads(Path(trainer.output_folder, "debug.json").read_text())
    assert debug["previous_stage_trainer"] == "nnUNetTrainer_20epochs"
    file = Path(trainer.output_folder, "checkpoint_final.pth")
    assert load_checkpoint(file)["nnunet_lite"]["hyperparameters"]["previous_stage_trainer"] == "nnUNetTrainer_20epochs"
    continued = make(CASCADE, 0)
    continued.load_checkpoint(str(file))
    assert continued.folder_with_segs_from_previous_stage == str(folder)


def test_no_previous_stage_to_take(dataset: Path) -> None:
    with pytest.raises(ArgumentError, match="3d_fullres has no previous stage"):
        take_previous_stage_from(make("3d_fullres", 0), "nnUNetTrainer")


@pytest.mark.parametrize(
    ("labels", "references"),
    [
        (REGIONS, {"(1, 2)": 222, "2": 72}),
        (LABELS_AND_IGNORE, {"1": 90, "2": 48}),
        (REGIONS_AND_IGNORE, {"(1, 2)": 138, "2": 48}),
    ],
    ids=["regions", "ignore", "both"],
)
def test_modes_of_a_cascade(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, labels: Any, references: dict[str, int]
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    evaluate = validation.compute_metrics_on_folder
    monkeypatch.setattr(validation, "compute_metrics_on_folder", partial(evaluate, num_processes=0))
    cascade_training.write_dataset(nnunet_folders.preprocessed, labels)
    _predict_all(nnunet_folders.results, PART)
    trainer = train(CASCADE, 0)
    assert trainer.num_input_channels == 3, "one per label, with regions too"
    summary = json.loads(Path(trainer.output_folder, "validation", "summary.json").read_text())
    (first, *_) = summary["metric_per_case"]
    counts = {label: values["n_ref"] for label, values in first["metrics"].items()}
    assert counts == references, "voxels in slices to be ignored do not count"
