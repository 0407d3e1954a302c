"""What nnUNetv2_status says at every step from images to a chosen model."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from conftest import Folders
from helpers.commands import run
from helpers.crossvalidations import NAME, documents, make_model, make_references

from nnunet_lite.model_selection.dataset_status import dataset_status
from nnunet_lite.model_selection.find_best_configuration import find_best_configuration

MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def raw_images(raw: Path, cases: int = 3) -> None:
    folder = raw / NAME / "imagesTr"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        (folder / f"case_{number}_0000.nii.gz").touch()
    (raw / NAME / "dataset.json").write_text(json.dumps(documents()["dataset.json"]))


def test_every_step(nnunet_folders: Folders) -> None:
    raw, preprocessed, results = nnunet_folders

    def says(command: str) -> None:
        assert dataset_status(NAME).next_command == command

    (raw / NAME).mkdir()
    says("put images and labels into nnUNet_raw, or install a model")
    raw_images(raw)
    assert dataset_status(NAME).training_cases == 3 and dataset_status(NAME).test_cases == 0
    says("nnUNetv2_plan_and_preprocess -d 41 --verify_dataset_integrity")
    make_references(raw, preprocessed, documents())
    (preprocessed / NAME / "dataset_fingerprint.json").write_text("{}")
    plans = preprocessed / NAME / "nnUNetPlans.json"
    content = json.loads(plans.read_text())
    for name in ("2d", "3d_lowres", "3d_fullres"):
        content["configurations"][name]["data_identifier"] = f"nnUNetPlans_{name}"
    plans.write_text(json.dumps(content))
    says("nnUNetv2_plan_and_preprocess -d 41")
    data = preprocessed / NAME / "nnUNetPlans_3d_fullres"
    data.mkdir()
    (data / "case_0.pkl").touch()
    says("nnUNetv2_preprocess -d 41 -plans_name nnUNetPlans -c 2d 3d_lowres 3d_fullres")
    for number in (1, 2):
        (data / f"case_{number}.pkl").touch()
    found = {entry.configuration: entry.preprocessed for entry in dataset_status(NAME).configurations}
    assert found == {"2d": 0, "3d_lowres": 0, "3d_fullres": 3, "3d_cascade_fullres": 3}
    says("nnUNetv2_train 41 3d_fullres 0 --npz")
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    model = make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents())
    says("nnUNetv2_find_best_configuration 41 -c 3d_fullres -f 0 1")
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}, {}]")
    says(f"nnUNetv2_train {NAME} 3d_fullres 2 --npz")
    (model / "fold_1" / "validation" / "summary.json").unlink()
    says(f"nnUNetv2_train {NAME} 3d_fullres 1 --val --npz")
    (model / "fold_1" / "checkpoint_final.pth").rename(model / "fold_1" / "checkpoint_latest.pth")
    says(f"nnUNetv2_train {NAME} 3d_fullres 1 --c --npz")
    (model / "fold_1" / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    fold = dataset_status(NAME).models[0].folds[1]
    assert (fold.state, fold.epoch, fold.dice) == ("in training", 2, None)
    os.utime(model / "fold_1" / "metrics.jsonl", (time.time() - 9999,) * 2)
    assert dataset_status(NAME).models[0].folds[1].state == "interrupted"


def test_the_best_model_and_epochs_of_upstreams_log(nnunet_folders: Folders) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    model = make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents())
    lines = ("Epoch 0 ", "Current learning rate: 0.01 ", "Epoch 1 ")
    log = "".join(f"2026-01-01 10:00:00.1: {line}\n" for line in lines)
    (model / "fold_0" / "training_log_2026.txt").write_text(log)
    models = [{"plans": "nnUNetPlans", "configuration": "3d_fullres", "trainer": "nnUNetTrainer"}]
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    find_best_configuration(NAME, models, folds=(0, 1), num_processes=0)
    status = dataset_status(NAME)
    assert status.chosen == status.considered == [MODEL]
    instructions = results / NAME / "inference_instructions.txt"
    assert status.next_command == f"finished; predict with the commands in {instructions}" and instructions.is_file()
    fold = status.models[0].folds[0]
    assert (fold.epoch, fold.probabilities, fold.state) == (2, True, "trained") and 0 < (fold.dice or 0) < 1


def test_damaged_documents_are_said(nnunet_folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    raw_images(nnunet_folders.raw)
    (nnunet_folders.raw / NAME / "dataset.json").write_text("{")
    (nnunet_folders.preprocessed / NAME).mkdir()
    (nnunet_folders.preprocessed / NAME / "nnUNetPlans.json").write_text('{"configurations": 3}')
    assert run("nnUNetv2_status", "-d", "41") == 0
    assert "  faults: " in capsys.readouterr().out


def test_all_datasets(nnunet_folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nnUNetv2_status") == 0
    assert "There are no datasets" in capsys.readouterr().out
    raw_images(nnunet_folders.raw)
    (nnunet_folders.results / "Dataset042_Other").mkdir()
    assert run("nnUNetv2_status") == 0
    said = capsys.readouterr().out
    assert said.startswith(NAME) and "\n\nDataset042_Other\n" in said and "3 training cases" in said
    assert run("nnUNetv2_status", "-d", "7") == 2


@pytest.mark.parametrize("key", ["trainer", "configuration"])
def test_a_damaged_choice_stops_nothing(nnunet_folders: Folders, capsys: pytest.CaptureFixture[str], key: str) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents())
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    models = [{"plans": "nnUNetPlans", "configuration": "3d_fullres", "trainer": "nnUNetTrainer"}]
    find_best_configuration(NAME, models, folds=(0, 1), num_processes=0)
    file = results / NAME / "inference_information.json"
    content = json.loads(file.read_text())
    content["best_model_or_ensemble"]["selected_model_or_models"][0][key] = ""
    file.write_text(json.dumps(content))
    assert dataset_status(NAME).chosen == [] and dataset_status(NAME).considered == [MODEL]
    assert run("nnUNetv2_status", "-d", "41") == 0 and "best:" not in capsys.readouterr().out


@pytest.mark.parametrize("epoch", ["1" + "0" * 400, "1e999", "-4", "NaN", '"5"', "null"])
def test_epochs_that_cannot_be_are_passed_over(nnunet_folders: Folders, epoch: str) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    model = make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents())
    (model / "fold_0" / "metrics.jsonl").write_text(f'{{"epoch": 3}}\n{{"epoch": {epoch}}}\n')
    (model / "fold_1" / "training_log_2026.txt").write_text(f"2026-01-01 10:00:00.1: Epoch {'9' * 5000}\n")
    folds = dataset_status(NAME).models[0].folds
    assert folds[0].epoch == 4 and folds[1].epoch == 10**9
