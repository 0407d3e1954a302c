"""The best of several models and pairs of them, on made-up cross-validations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Folders
from helpers.crossvalidations import LABELS, NAME, documents, make_model, make_references, write_labels

from nnunet_lite.cli.status import _lines
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder_simple
from nnunet_lite.evaluation.summary import load_summary_json
from nnunet_lite.exceptions import DatasetError, PathError
from nnunet_lite.model_selection.accumulate_cv_results import accumulate_cv_results, train_command
from nnunet_lite.model_selection.dataset_status import dataset_status
from nnunet_lite.model_selection.find_best_configuration import Candidate, find_best_configuration

FULLRES, LOWRES = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetPlans__3d_lowres"
PAIR = f"ensemble___{FULLRES}___{LOWRES}___0_1"


def models(*configurations: str) -> list[dict[str, str]]:
    return [{"plans": "nnUNetPlans", "configuration": name, "trainer": "nnUNetTrainer"} for name in configurations]


def prepare(folders: Folders, errors: dict[str, int], content: dict[str, Any] | None = None, **options: Any) -> Path:
    content = content or documents()
    make_references(folders.raw, folders.preprocessed, content)
    references = folders.raw / NAME / "labelsTr"
    for seed, (configuration, number) in enumerate(errors.items()):
        make_model(folders.results, references, configuration, number, content, seed=seed, **options)
    return folders.results / NAME


def find(*configurations: str, **options: Any) -> dict[str, Any]:
    return find_best_configuration(41, models(*configurations), num_processes=0, folds=(0, 1), **options)


def test_the_single_model_wins(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3, "3d_lowres": 60})
    information = find("3d_fullres", "3d_lowres", "never_planned")
    scores = information["all_results"]
    assert list(scores) == [FULLRES, LOWRES, PAIR] and scores[FULLRES] > max(scores[LOWRES], scores[PAIR])
    best = information["best_model_or_ensemble"]
    merged = results / FULLRES / "crossval_results_folds_0_1"
    assert best["selected_model_or_models"] == [
        {"configuration": "3d_fullres", "plans_identifier": "nnUNetPlans", "trainer": "nnUNetTrainer"}
    ]
    assert best["postprocessing_file"] == str(merged / "postprocessing.pkl")
    assert best["some_plans_file"] == str(merged / "plans.json")
    assert best["result_on_crossval_pre_pp"] == scores[FULLRES]
    after = load_summary_json(merged / "postprocessed" / "summary.json")["foreground_mean"]["Dice"]
    assert best["result_on_crossval_post_pp"] == after > scores[FULLRES]
    assert sorted(file.name for file in merged.iterdir()) == [
        *("a.nii.gz", "b.nii.gz", "c.nii.gz", "dataset.json", "plans.json"),
        *("postprocessed", "postprocessing.json", "postprocessing.pkl", "summary.json"),
    ]
    assert information["folds"] == [0, 1] and information["ensembling_allowed"] is True
    assert [model["configuration"] for model in information["considered_models"]] == ["3d_fullres", "3d_lowres"]
    written = json.loads((results / "inference_information.json").read_text())
    relative = written["best_model_or_ensemble"].pop("postprocessing_file_relative")
    assert results / relative == merged / "postprocessing.pkl"
    written["best_model_or_ensemble"].pop("some_plans_file_relative")
    assert written == information
    text = (results / "inference_instructions.txt").read_text()
    assert (
        f"nnUNetv2_predict -d {NAME} -i INPUT_FOLDER -o OUTPUT_FOLDER -f  0 1 "
        "-tr nnUNetTrainer -c 3d_fullres -p nnUNetPlans\n"
    ) in text
    assert f"nnUNetv2_apply_postprocessing -i OUTPUT_FOLDER -o OUTPUT_FOLDER_PP -pp_pkl_file {merged}/postp" in text
    assert "nnUNetv2_ensemble" not in text


def test_the_ensemble_wins(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 60, "3d_lowres": 60})
    information = find("3d_fullres", "3d_lowres")
    scores = information["all_results"]
    assert scores[PAIR] > max(scores[FULLRES], scores[LOWRES])
    assert len(information["best_model_or_ensemble"]["selected_model_or_models"]) == 2
    folder = results / "ensembles" / PAIR
    assert information["best_model_or_ensemble"]["some_plans_file"] == str(folder / "plans.json")
    assert (folder / "postprocessed" / "summary.json").is_file()
    text = (results / "inference_instructions.txt").read_text()
    for number, configuration in enumerate(("3d_fullres", "3d_lowres"), 1):
        command = f"-o OUTPUT_FOLDER_MODEL_{number} -f  0 1 -tr nnUNetTrainer -c {configuration} -p nnUNetPlans"
        assert f"{command} --save_probabilities\n" in text
    assert "nnUNetv2_ensemble -i OUTPUT_FOLDER_MODEL_1 OUTPUT_FOLDER_MODEL_2 -o OUTPUT_FOLDER -np " in text


def test_a_cascade_is_predicted_after_its_first_stage(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_lowres": 60, "3d_cascade_fullres": 3}, probabilities=False)
    find("3d_lowres", "3d_cascade_fullres", allow_ensembling=False)
    lines = (results / "inference_instructions.txt").read_text().splitlines()
    predictions = [line for line in lines if line.startswith("nnUNetv2_predict")]
    assert "-o OUTPUT_FOLDER_PREV_STAGE" in predictions[0] and "-c 3d_lowres" in predictions[0]
    assert predictions[1].endswith(
        "-c 3d_cascade_fullres -p nnUNetPlans -prev_stage_predictions OUTPUT_FOLDER_PREV_STAGE"
    )


def test_a_class_that_never_occurs(nnunet_folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    content = documents({**LABELS, "absent": 3})
    prepare(nnunet_folders, {"2d": 60, "3d_fullres": 3, "3d_lowres": 60}, content, probabilities=False)
    information = find("2d", "3d_fullres", "3d_lowres", allow_ensembling=False)
    assert all(np.isnan(score) for score in information["all_results"].values())
    chosen = information["best_model_or_ensemble"]["selected_model_or_models"]
    assert [model["configuration"] for model in chosen] == ["3d_fullres"]
    assert "Some classes occur nowhere" in caplog.text


def test_equal_scores_take_the_first(nnunet_folders: Folders) -> None:
    prepare(nnunet_folders, {"2d": 0, "3d_fullres": 0})
    information = find("2d", "3d_fullres")
    assert set(information["all_results"].values()) == {1.0}
    assert information["best_model_or_ensemble"]["selected_model_or_models"][0]["configuration"] == "2d"


def test_what_is_missing_is_listed_with_its_commands(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3, "3d_lowres": 3})
    with pytest.raises(
        PathError, match=r"2d is no trained model: there is no such folder; train it with nnUNetv2_train .* 2d FOLD"
    ):
        find("2d", "3d_fullres")
    (results / FULLRES / "fold_0" / "validation" / "b.npz").unlink()
    (results / LOWRES / "fold_1" / "validation" / "summary.json").unlink()
    (results / LOWRES / "fold_1" / "checkpoint_final.pth").unlink()
    with pytest.raises(PathError) as caught:
        find("3d_fullres", "3d_lowres")
    assert str(caught.value).splitlines()[1:3] == [
        f"  nnUNetv2_train {NAME} 3d_fullres 0 --val --npz",
        f"  nnUNetv2_train {NAME} 3d_lowres 1 --npz",
    ]
    assert not (results / "ensembles").exists() and not list(results.glob("*/crossval*"))
    assert find("3d_fullres", allow_ensembling=True)["all_results"].keys() == {FULLRES}


def test_what_is_missing_is_made(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3, "3d_lowres": 3})
    lost = results / FULLRES / "fold_0" / "validation" / "b.npz"
    kept = lost.rename(lost.with_suffix(".kept"))
    asked: list[Any] = []

    def make(candidate: Candidate, fold: int | str, probabilities: bool) -> None:
        asked.append((candidate.configuration, fold, probabilities))
        kept.rename(lost)

    find("3d_fullres", "3d_lowres", make_missing=make)
    assert asked == [("3d_fullres", 0, True)]


def test_earlier_predictions_of_other_cases_do_not_count(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 60, "3d_lowres": 60})
    find("3d_fullres", "3d_lowres")
    write_labels(results / "ensembles" / PAIR / "of_an_earlier_split.nii.gz", np.zeros((3, 12, 14), np.uint8))
    assert find("3d_fullres", "3d_lowres")["all_results"]


def test_accumulating(nnunet_folders: Folders, tmp_path: Path) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 30})
    model, merged = results / FULLRES, tmp_path / "merged"
    accumulate_cv_results(model, merged, (0, 1), 0)
    summary = load_summary_json(merged / "summary.json")
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
    ]
    (merged / "old.nii.gz").write_bytes(b"of another call")
    accumulate_cv_results(model, merged, (0,), 0)
    assert sorted(file.name for file in merged.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    accumulate_cv_results(model, merged, (0, 1), 0, overwrite=False)
    assert len(load_summary_json(merged / "summary.json")["metric_per_case"]) == 3
    with pytest.raises(PathError, match=r"no finished validation of fold 2, all. Run\n  nnUNetv2_train"):
        accumulate_cv_results(model, merged, (0, 2, "all"), 0)
    (model / "fold_1" / "validation" / "a.nii.gz").write_bytes((merged / "a.nii.gz").read_bytes())
    with pytest.raises(
        DatasetError, match="a.nii.gz is a validation case of folds 0 and 1, which were trained with different"
    ):
        accumulate_cv_results(model, merged, (0, 1), 0)
    assert len(list(merged.glob("*.nii.gz"))) == 3


def test_the_command_of_a_folder() -> None:
    plans = "ptPlans__mae____Spacing__1.00___Norm__Z"
    folder = Path("results", NAME, f"PretrainedTrainer_adam__warm_e5_s1__{plans}__3d_fullres")
    assert train_command(folder, "all") == (
        f"nnUNetv2_train {NAME} 3d_fullres all -tr PretrainedTrainer_adam__warm -p {plans} --epochs 5 --seed 1"
    )


def test_additional_metrics_in_a_summary_change_no_decision(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3, "3d_lowres": 60})
    plain = find("3d_fullres", "3d_lowres")
    for model in (FULLRES, LOWRES):
        merged = results / model / "crossval_results_folds_0_1"
        before = load_summary_json(merged / "summary.json")
        compute_metrics_on_folder_simple(
            nnunet_folders.raw / NAME / "labelsTr", merged, [1, 2], num_processes=0, metrics=["all"]
        )
        after = load_summary_json(merged / "summary.json")
        assert after.pop("additional_metrics")["mean"][1]["hd95"] > 0
        np.testing.assert_equal(after["mean"], before["mean"])
    assert find("3d_fullres", "3d_lowres", overwrite=False) == plain


def test_plans_and_configurations_there_are(nnunet_folders: Folders) -> None:
    prepare(nnunet_folders, {"3d_fullres": 3})
    with pytest.raises(DatasetError, match=r"asked for nnUNetPlans, 3dfullres, planned are .*: nnUNetPlans \(2d, 3d_"):
        find("3dfullres")


def test_nothing_is_planned(nnunet_folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    (nnunet_folders.raw / NAME).mkdir()
    with pytest.raises(DatasetError, match=r"not planned yet \(no plans in .*\): nnUNetv2_plan_and_preprocess -d 41$"):
        find("2d", "3d_fullres")
    assert caplog.text == ""


def test_models_of_other_trainers_are_named(nnunet_folders: Folders) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3})
    (results / FULLRES).rename(results / FULLRES.replace("Trainer_", "Trainer_e20_"))
    with pytest.raises(PathError, match=r"; trained are -tr nnUNetTrainer_e20 -p nnUNetPlans -c 3d_fullres$"):
        find("3d_fullres")


def test_some_of_the_folds(nnunet_folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    results = prepare(nnunet_folders, {"3d_fullres": 3})
    find_best_configuration(41, models("3d_fullres"), num_processes=0, folds=(0,))
    assert "no prediction in" not in caplog.text
    (nnunet_folders.preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    status = dataset_status(NAME)
    assert status.compared_folds == [0] and status.chosen == [results.joinpath(FULLRES).name]
    assert f"  best: {FULLRES} (by fold 0 alone)" in _lines(status)
    find("3d_fullres")
    assert dataset_status(NAME).compared_folds == []
