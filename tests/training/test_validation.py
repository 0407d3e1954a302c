"""The final validation: what it writes, what it keeps of an earlier one, and what it says."""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import Folders
from helpers import cascade_training, tiny_training
from helpers.cascade_training import CASCADE, LOWRES, NEXT_STAGES, REGIONS, train
from helpers.commands import succeed

from nnunet_lite.exceptions import NumericalError, WorkerError
from nnunet_lite.inference import data_iterators, memory_of_sums, reduced_prediction
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.inference.prediction_forecast import PredictionProgress
from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint
from nnunet_lite.training import validation

VALIDATED = tiny_training.CASES[3:]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    evaluate = validation.compute_metrics_on_folder
    monkeypatch.setattr(validation, "compute_metrics_on_folder", partial(evaluate, num_processes=0))


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every image that the network predicts."""
    calls: list[int] = []
    original = nnUNetPredictor.predict_item

    def count(self: nnUNetPredictor, name: str, item: Any, *others: Any) -> Any:
        calls.append(item["data"].shape[0])
        return original(self, name, item, *others)

    monkeypatch.setattr(nnUNetPredictor, "predict_item", count)
    return calls


def _files(trainer: Any) -> dict[str, Path]:
    return {file.name: file for file in Path(trainer.output_folder, "validation").iterdir()}


def test_regions_for_several_next_stages_and_only_what_is_missing(
    nnunet_folders: Folders, predicted: list[int]
) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed, REGIONS, several=True)
    trainer = train(LOWRES, 0)
    assert len(predicted) == len(VALIDATED)
    assert set(_files(trainer)) == {*(f"{case}.nii.gz" for case in VALIDATED), "summary.json"}
    base = Path(trainer.output_folder_base, "predicted_next_stage")
    for stage in NEXT_STAGES:
        assert {file.name for file in (base / stage).iterdir()} == {f"{case}.b2nd" for case in VALIDATED}
        labels = blosc2.open(str(base / stage / f"{VALIDATED[0]}.b2nd"))
        assert (labels.shape, labels.dtype) == ((10, 16, 14), np.uint8)
        assert set(np.unique(labels[:])) <= {0, 1, 2}

    trainer.perform_actual_validation()
    assert len(predicted) == 2, "all is there"
    (base / NEXT_STAGES[1] / f"{VALIDATED[0]}.b2nd").unlink()
    before = _files(trainer)[f"{VALIDATED[0]}.nii.gz"].stat().st_mtime_ns
    trainer.perform_actual_validation()
    assert len(predicted) == 3
    assert (base / NEXT_STAGES[1] / f"{VALIDATED[0]}.b2nd").is_file()
    assert _files(trainer)[f"{VALIDATED[0]}.nii.gz"].stat().st_mtime_ns == before, "only the missing output is written"
    _files(trainer)[f"{VALIDATED[1]}.nii.gz"].write_bytes(b"something else")
    trainer.perform_actual_validation()
    assert len(predicted) == 4, "a file that has changed since is made anew"


def test_other_weights_predict_anew_and_probabilities_are_added(nnunet_folders: Folders, predicted: list[int]) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = train("2d", 0)
    (case,) = (name for name in _files(trainer) if name.endswith(".nii.gz"))
    trainer.perform_actual_validation(save_probabilities=True)
    assert len(predicted) == 2
    name = case.removesuffix(".nii.gz")
    content = np.load(_files(trainer)[f"{name}.npz"])
    assert (list(content), content["probabilities"].dtype) == (["probabilities"], np.float32)
    assert content["probabilities"].shape == (3, 10, 16, 14)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(_files(trainer)[case])))
    assert np.array_equal(content["probabilities"].argmax(0), labels)
    assert np.allclose(content["probabilities"].sum(0), 1, atol=1e-5)
    assert _files(trainer)[f"{name}.pkl"].stat().st_size > 0

    trainer.perform_actual_validation(save_probabilities=True)
    assert len(predicted) == 2
    with torch.no_grad():
        next(iter(trainer.network.parameters())).add_(0.1)
    trainer.perform_actual_validation()
    assert len(predicted) == 3, "the weights are others"
    trainer.inference_allowed_mirroring_axes = None
    trainer.perform_actual_validation()
    assert len(predicted) == 4, "so are the settings"


def test_interrupted_goes_on(nnunet_folders: Folders, predicted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make(LOWRES, 1)
    trainer.run_training()
    original = validation.export_outputs

    def interrupt(*arguments: Any) -> None:
        if len(predicted) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(validation, "export_outputs", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.perform_actual_validation()
    assert "summary.json" not in _files(trainer)
    leftover = Path(trainer.output_folder, "validation", f".0a1b2c3d.tmp.{tiny_training.CASES[1]}.nii.gz")
    leftover.write_bytes(b"half")
    monkeypatch.setattr(validation, "export_outputs", original)
    predicted.clear()
    trainer.perform_actual_validation()
    assert len(predicted) == 2
    assert not leftover.exists()
    summary = json.loads(_files(trainer)["summary.json"].read_text())
    assert len(summary["metric_per_case"]) == 3


def test_predictions_that_nobody_noted_are_made_anew(nnunet_folders: Folders, predicted: list[int]) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make("2d", 0)
    trainer.run_training()
    _, keys = trainer.do_split()
    folder = Path(trainer.output_folder, "validation")
    folder.mkdir()
    (folder / f"{keys[0]}.nii.gz").write_bytes(b"of upstream, or of an older version")
    trainer.perform_actual_validation()
    assert len(predicted) == len(keys)


def test_all_says_what_its_dice_is(nnunet_folders: Folders) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = train("2d", "all")
    assert trainer.output_folder.endswith("fold_all")
    assert len(json.loads(_files(trainer)["summary.json"].read_text())["metric_per_case"]) == len(tiny_training.CASES)
    log = Path(trainer.log_file).read_text()
    assert "no estimate for new images" in log and "the Dice of training cases" in log


def test_a_fold_without_validation_cases(nnunet_folders: Folders) -> None:
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    split = [{"train": list(tiny_training.CASES), "val": []}]
    (folder / "splits_final.json").write_text(json.dumps(split))
    trainer = cascade_training.make("2d", 0)
    trainer.initialize()
    trainer.perform_actual_validation()
    assert "no validation cases" in Path(trainer.log_file).read_text()


def test_next_stage_that_is_not_preprocessed_is_passed_over(nnunet_folders: Folders, predicted: list[int]) -> None:
    folder = cascade_training.write_dataset(nnunet_folders.preprocessed)
    os.rename(folder / "nnUNetPlans_3d", folder / "elsewhere")
    trainer = train(LOWRES, 0)
    assert f"Nothing predicted for {CASCADE}" in Path(trainer.log_file).read_text()
    os.rename(folder / "elsewhere", folder / "nnUNetPlans_3d")
    missing = folder / "nnUNetPlans_3d" / f"{VALIDATED[0]}.b2nd"
    missing.rename(folder / "kept.b2nd")
    predicted.clear()
    trainer.perform_actual_validation()
    assert f"Nothing predicted for {CASCADE} of {VALIDATED[0]}" in Path(trainer.log_file).read_text()
    assert len(predicted) == 1
    made = Path(trainer.output_folder_base, "predicted_next_stage", CASCADE)
    assert [file.name for file in made.iterdir()] == [f"{VALIDATED[1]}.b2nd"]


def test_fold_all_leaves_predictions_of_cases_that_others_have_not_seen(nnunet_folders: Folders) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed)
    fold = train(LOWRES, 0)
    folder = Path(fold.output_folder_base, "predicted_next_stage", CASCADE)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(before) == 2
    last = train(LOWRES, "all")
    assert len(list(folder.iterdir())) == 5
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert "2 predictions for next stages are kept" in Path(last.log_file).read_text()
    with torch.no_grad():
        next(iter(last.network.parameters())).add_(0.1)
    own = folder / f"{tiny_training.CASES[0]}.b2nd"
    first = own.stat().st_mtime_ns
    last.perform_actual_validation()
    assert own.stat().st_mtime_ns != first, "its own it makes anew"
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_best_checkpoint_and_probabilities_by_the_command(
    nnunet_folders: Folders, predicted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_lite.training.run_training.set_num_threads", lambda _: None)
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    flags = (tiny_training.NAME, "2d", 0, "-device", "cpu", "--precision", "float32", "--epochs", 1, "--iterations", 1)
    succeed("nnUNetv2_train", *flags, "--seed", 1)
    (fold,) = nnunet_folders.results.rglob("fold_0")
    best = load_checkpoint(fold / "checkpoint_best.pth")
    best["network_weights"] = {name: tensor + 0.1 for name, tensor in best["network_weights"].items()}
    save_checkpoint(best, fold / "checkpoint_best.pth")
    succeed("nnUNetv2_train", *flags, "--seed", 1, "--val")
    assert len(predicted) == 1
    succeed("nnUNetv2_train", *flags, "--seed", 1, "--val", "--val_best", "--npz")
    assert len(predicted) == 2
    assert len(list((fold / "validation").glob("*.npz"))) == 1
    succeed("nnUNetv2_train", *flags, "--seed", 1, "--val")
    assert len(predicted) == 3, "the final weights again, in the same folder"


def test_numbers_that_go_wrong_name_the_case(nnunet_folders: Folders) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make("2d", 0)
    trainer.initialize()
    with torch.no_grad():
        next(iter(trainer.network.parameters())).fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"^case_\d: the network put out NaN"):
        trainer.perform_actual_validation()


def _die(*arguments: Any) -> None:
    os.kill(os.getpid(), 9)


@pytest.mark.slow
def test_an_export_worker_that_dies_names_its_case(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make("2d", 0)
    trainer.initialize()
    monkeypatch.setattr(validation, "_WORKER_START", 0)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setattr(validation, "export_outputs", _die)
    with pytest.raises(WorkerError, match=r"case_\d: its process died"):
        trainer.perform_actual_validation()


def _contents(trainer: Any) -> dict[str, np.ndarray]:
    """Labels and probabilities of all outputs, those for next stages included."""
    found: dict[str, np.ndarray] = {}
    for name, file in _files(trainer).items():
        if name.endswith(".nii.gz"):
            found[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        elif name.endswith(".npz"):
            found[name] = np.load(file)["probabilities"]
    for file in Path(trainer.output_folder_base, "predicted_next_stage").rglob("*.b2nd"):
        found[f"{file.parent.name}/{file.name}"] = blosc2.open(str(file))[:]
    return found


def _again(trainer: Any, save_probabilities: bool) -> dict[str, np.ndarray]:
    """The outputs of a validation that finds nothing."""
    for file in [*_files(trainer).values(), *Path(trainer.output_folder_base, "predicted_next_stage").rglob("*.b2nd")]:
        file.unlink()
    trainer.perform_actual_validation(save_probabilities)
    return _contents(trainer)


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with every image that is predicted in bands."""
    calls: list[bool] = []
    run = reduced_prediction.predict_in_bands
    monkeypatch.setattr(
        reduced_prediction, "predict_in_bands", lambda *a, **b: (calls.append(b["lines"]), run(*a, **b))
    )
    return calls


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_large_logits_come_in_bands_with_the_same_results(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, bands: list[bool], labels: Any
) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed, labels, several=True)
    trainer = cascade_training.make(LOWRES, 0)
    trainer.initialize()
    trainer.perform_actual_validation(save_probabilities=True)
    expected = _contents(trainer)
    assert len(expected) == 4 * len(VALIDATED) and bands == []
    assert {name for name in expected if "/" in name} == {f"{s}/{c}.b2nd" for s in NEXT_STAGES for c in VALIDATED}
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 0)
    found = _again(trainer, True)
    assert bands == [False] * len(VALIDATED)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert values.dtype == found[name].dtype
        if name.endswith(".npz"):  # the softmax of a block depends in its last bit on where the block begins
            assert np.allclose(found[name], values, atol=2e-7)
        else:
            assert np.array_equal(found[name], values)
            assert len(np.unique(values)) > 1
    trainer.perform_actual_validation(save_probabilities=True)
    assert len(bands) == len(VALIDATED), "all of it is noted"


def test_a_next_stage_that_is_missing_alone_is_made_in_bands_alone(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, bands: list[bool]
) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make(LOWRES, 0)
    trainer.initialize()
    trainer.perform_actual_validation()
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 0)
    file = Path(trainer.output_folder_base, "predicted_next_stage", CASCADE, f"{VALIDATED[1]}.b2nd")
    expected = blosc2.open(str(file))[:]
    file.unlink()
    before = {name: path.stat().st_mtime_ns for name, path in _files(trainer).items() if name != "summary.json"}
    trainer.perform_actual_validation()
    assert np.array_equal(blosc2.open(str(file))[:], expected) and bands == [False]
    after = {name: path.stat().st_mtime_ns for name, path in _files(trainer).items() if name != "summary.json"}
    assert after == before


@pytest.mark.slow
def test_exports_in_the_background_are_the_same(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make(LOWRES, 0)
    trainer.initialize()
    trainer.perform_actual_validation()
    expected = _contents(trainer)
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    monkeypatch.setattr(validation, "_WORKER_START", 0)
    monkeypatch.setattr(data_iterators, "_LARGE", 16)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    for limit in (2**30, 0):
        monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", limit)
        found = _again(trainer, False)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], values) for name, values in expected.items())
        assert not list((tmp_path / "system").iterdir()), "nothing is left of what was handed over"


def test_the_log_of_a_validation_tells_how_long_it_will_take(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PredictionProgress, "forecast", lambda self: ", about 5 min left")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = cascade_training.make("2d", 0)
    trainer.initialize()
    trainer.perform_actual_validation()
    _, (key,) = trainer.do_split()
    assert f"predicting {key} (1 of 1, about 5 min left)" in Path(trainer.log_file).read_text()
