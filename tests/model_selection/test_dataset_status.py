"""What nnUNetv2_status says at every step from images to a chosen model."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Folders
from helpers.commands import run
from helpers.crossvalidations import NAME, documents, make_model, make_references

from nnunet_lite.model_selection.dataset_status import dataset_status
from nnunet_lite.model_selection.find_best_configuration import find_best_configuration
from nnunet_lite.training.fold_folder import in_use

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
    with in_use(model / "fold_1"):
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


def test_a_training_that_was_stopped_a_moment_ago(nnunet_folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    model = make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents())
    fold = model / "fold_1"
    shutil.rmtree(fold / "validation")
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_latest.pth")

    def state() -> str:
        return dataset_status(NAME).models[0].folds[1].state

    (fold / "training_log_2026.txt").write_text("2026-01-01 10:00:00.1: Epoch 0 \n")
    assert state() == "in training"  # of upstream, whose trainings hold no lock
    (fold / "debug.json").write_text('{"nnunet_lite_version": "1"}')
    assert state() == "interrupted"
    (fold / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n')
    (fold / ".in_use").write_text(f"process {os.getpid()} on another-{platform.node()}")
    assert state() == "in training"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    (fold / ".in_use").write_text(f"process {int(ended.stdout)} on {platform.node()}")
    assert run("nnUNetv2_status", "-d", NAME) == 0
    assert "fold 1: stopped after 2 epochs\n" in capsys.readouterr().out


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


def test_raw_images_with_a_fault(nnunet_folders: Folders) -> None:
    raw_images(nnunet_folders.raw)
    folder = nnunet_folders.raw / NAME
    (folder / "imagesTs").mkdir()
    document = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**document, "file_ending": ".nrrd"}))
    status = dataset_status(NAME)
    assert status.next_command == "nnUNetv2_check_dataset -d 41"
    fault = f'no image in {folder}/imagesTr ends in .nrrd ("file_ending" of dataset.json): case_0_0000.nii.gz'
    assert status.fault == fault
    (folder / "dataset.json").unlink()
    status = dataset_status(NAME)
    assert status.next_command == "nnUNetv2_check_dataset -d 41"
    assert (status.fault or "").count(f"There is no {folder}/dataset.json; every dataset needs it") == 1


def test_folders_that_are_not_there(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(nnunet_folders.raw / "nope"))
    monkeypatch.delenv("nnUNet_results")
    assert run("nnUNetv2_status") == 0
    said = capsys.readouterr().out
    assert f"  nnUNet_raw={nnunet_folders.raw}/nope: there is no such folder; make it, or " in said
    assert "export nnUNet_raw=/path/to/nnUNet_raw\n" in said
    assert "  nnUNet_results is not set; " in said and "export nnUNet_results=/path/to" in said
    assert "nnUNet_preprocessed is not set" not in said and "nnUNet_preprocessed=" not in said
    (nnunet_folders.preprocessed / NAME).mkdir()
    assert run("nnUNetv2_status") == 0
    said = capsys.readouterr().out
    assert f"nnUNet_raw={nnunet_folders.raw}/nope" in said and "is not set" not in said
