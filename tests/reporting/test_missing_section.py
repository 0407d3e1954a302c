"""What is missing comes with the command that makes it."""

from __future__ import annotations

import json

from conftest import Folders
from helpers.crossvalidations import NAME, documents, make_model, make_references

from nnunet_lite.model_selection.dataset_status import dataset_status
from nnunet_lite.reporting.missing_section import missing_parts, missing_section


def commands(folds: list[int | str] | None = None) -> list[str]:
    status = dataset_status(NAME)
    return [entry.command for entry in missing_parts(status, status.models, folds)]


def test_every_missing_part_of_a_crossvalidation(nnunet_folders: Folders) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}, {}]")
    model = make_model(results, raw / NAME / "labelsTr", "3d_fullres", 30, documents(), probabilities=False)
    assert commands() == [f"nnUNetv2_train {NAME} 3d_fullres 2"]
    (model / "fold_1" / "validation" / "summary.json").unlink()
    assert commands() == [f"nnUNetv2_train {NAME} 3d_fullres 1 --val", f"nnUNetv2_train {NAME} 3d_fullres 2"]
    assert commands([0, 1]) == [f"nnUNetv2_train {NAME} 3d_fullres 1 --val"]
    (preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    make_model(results, raw / NAME / "labelsTr", "2d", 30, documents())
    assert commands() == [
        "nnUNetv2_find_best_configuration 41 -c 2d" if "best" in command else command
        for command in [
            f"nnUNetv2_train {NAME} 3d_fullres 0 --val --npz",
            f"nnUNetv2_train {NAME} 3d_fullres 1 --val --npz",
            "best",
        ]
    ]


def test_a_model_of_all_cases_needs_no_folds(nnunet_folders: Folders) -> None:
    raw, preprocessed, results = nnunet_folders
    make_references(raw, preprocessed, documents())
    model = make_model(results, raw / NAME / "labelsTr", "2d", 30, documents())
    (model / "fold_0").rename(model / "fold_all")
    for file in sorted((model / "fold_1").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (model / "fold_1").rmdir()
    assert commands() == []
    assert "Nothing is missing" in missing_section(dataset_status(NAME), [])


def test_before_planning_and_preprocessing(nnunet_folders: Folders) -> None:
    raw, preprocessed, _ = nnunet_folders
    images = raw / NAME / "imagesTr"
    images.mkdir(parents=True)
    (images / "a_0000.nii.gz").touch()
    (raw / NAME / "dataset.json").write_text(json.dumps(documents()["dataset.json"]))
    assert commands() == ["nnUNetv2_plan_and_preprocess -d 41 --verify_dataset_integrity"]
    (preprocessed / NAME).mkdir()
    (preprocessed / NAME / "dataset_fingerprint.json").write_text("{}")
    assert commands() == ["nnUNetv2_plan_and_preprocess -d 41"] == [dataset_status(NAME).next_command]
    assert "Nothing is missing" not in missing_section(
        dataset_status(NAME), missing_parts(dataset_status(NAME), [], None)
    )
    plans = documents()["plans.json"]
    plans["configurations"] = {"2d": {"data_identifier": "nnUNetPlans_2d"}}
    (preprocessed / NAME / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert commands() == ["nnUNetv2_preprocess -d 41 -c 2d -plans_name nnUNetPlans"]
    status = dataset_status(NAME)
    html = missing_section(status, missing_parts(status, status.models, None) * 50)
    assert "<code>nnUNetv2_preprocess -d 41 -c 2d" in html
    assert missing_section(status, missing_parts(status, [], None) * 100).count("<tr>") == 61  # header included


def test_a_dataset_that_waits_for_its_first_training(nnunet_folders: Folders) -> None:
    raw, preprocessed, _ = nnunet_folders
    (raw / NAME / "imagesTr").mkdir(parents=True)
    (raw / NAME / "imagesTr" / "a_0000.nii.gz").touch()
    (raw / NAME / "dataset.json").write_text(json.dumps(documents()["dataset.json"]))
    (preprocessed / NAME / "nnUNetPlans_2d").mkdir(parents=True)
    (preprocessed / NAME / "nnUNetPlans_2d" / "a.pkl").touch()
    (preprocessed / NAME / "dataset_fingerprint.json").write_text("{}")
    plans = documents()["plans.json"]
    plans["configurations"] = {"2d": {"data_identifier": "nnUNetPlans_2d"}}
    (preprocessed / NAME / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert commands() == ["nnUNetv2_train 41 2d 0 --npz"]
    assert commands([0]) == []  # nobody asked for more
    html = missing_section(dataset_status(NAME), [])
    assert "Nothing is missing of the models and folds of this report." in html
