"""The next command for states that are written down here; nothing is read but names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_lite.model_selection.dataset_status import (
    ConfigurationStatus,
    DatasetStatus,
    FoldStatus,
    ModelStatus,
)
from nnunet_lite.model_selection.next_command import next_command

NAME = "Dataset041_Blobs"
RESULTS = Path("/results") / NAME
CONFIGURATIONS = [
    ConfigurationStatus("nnUNetPlans", "2d", 3, "nnUNetPlans_2d"),
    ConfigurationStatus("nnUNetPlans", "3d_cascade_fullres", 3, "nnUNetPlans_3d_fullres", "3d_lowres"),
    ConfigurationStatus("nnUNetPlans", "3d_fullres", 3, "nnUNetPlans_3d_fullres"),
    ConfigurationStatus("nnUNetPlans", "3d_lowres", 3, "nnUNetPlans_3d_lowres"),
]


def trained(fold: int | str, probabilities: bool = True) -> FoldStatus:
    return FoldStatus(fold, "trained", 1, 0.5, probabilities)


def model(configuration: str, *folds: FoldStatus, trainer: str = "nnUNetTrainer", of: int = 2) -> ModelStatus:
    return ModelStatus(RESULTS / f"{trainer}__nnUNetPlans__{configuration}", list(folds), of)


def says(*models: ModelStatus, **more: Any) -> str:
    state = DatasetStatus(NAME, 3, 0, True, CONFIGURATIONS, list(models), [], [], "", None)
    return next_command(state._replace(**more))


def complete(configuration: str, trainer: str = "nnUNetTrainer") -> ModelStatus:
    return model(configuration, trained(0), trained(1), trainer=trainer)


def test_only_data_that_was_begun_is_preprocessed_on() -> None:
    configurations = [CONFIGURATIONS[0], CONFIGURATIONS[2]._replace(preprocessed=0)]
    assert says(configurations=configurations) == "nnUNetv2_train 41 2d 0 --npz"
    configurations[0] = CONFIGURATIONS[0]._replace(preprocessed=2)
    command = "nnUNetv2_preprocess -d 41 -plans_name nnUNetPlans -c 2d 3d_fullres"
    assert says(configurations=configurations) == command
    assert says(configurations=configurations, training_cases=0) == "nnUNetv2_train 41 2d 0 --npz"


def test_the_first_stage_of_a_cascade_is_trained_first() -> None:
    cascade, lowres = model("3d_cascade_fullres", trained(0)), model("3d_lowres", trained(0))
    assert says(cascade, lowres) == f"nnUNetv2_train {NAME} 3d_lowres 1 --npz"
    assert says(cascade, complete("3d_lowres")) == f"nnUNetv2_train {NAME} 3d_cascade_fullres 1 --npz"


def test_the_comparison_names_trainer_plans_and_folds() -> None:
    quick = complete("3d_fullres", "nnUNetTrainer_e20")
    command = "nnUNetv2_find_best_configuration 41 -c {} -tr nnUNetTrainer_e20 -f 0 1"
    assert says(quick) == command.format("3d_fullres")
    two = [quick, complete("2d", "nnUNetTrainer_e20")]
    assert says(complete("2d"), *two) == command.format("2d 3d_fullres"), "those that can be compared with each other"
    five = model("2d", *(trained(fold) for fold in range(5)), of=5)
    assert says(five) == "nnUNetv2_find_best_configuration 41 -c 2d"


def test_a_comparison_of_several_makes_probabilities_that_are_missing() -> None:
    without = model("2d", trained(0, probabilities=False), trained(1))
    assert says(without) == "nnUNetv2_find_best_configuration 41 -c 2d -f 0 1"
    command = "nnUNetv2_find_best_configuration 41 -c 2d 3d_fullres -f 0 1 --compute_missing"
    assert says(without, complete("3d_fullres")) == command


def test_a_model_that_was_completed_later_is_compared_too() -> None:
    first, second = complete("2d"), complete("3d_fullres")
    chosen: dict[str, Any] = {"chosen": [first.folder.name], "considered": [first.folder.name]}
    finished = f"finished; predict with the commands in {RESULTS}/inference_instructions.txt"
    assert says(first, **chosen) == finished
    assert says(first, second, **chosen) == "nnUNetv2_find_best_configuration 41 -c 2d 3d_fullres -f 0 1"
    chosen["considered"].append(second.folder.name)
    assert says(first, second, **chosen) == finished
    other = complete("2d", "nnUNetTrainer_e20")
    assert says(first, second, other, **chosen) == finished, "comparing another trainer would forget this choice"


def test_what_runs_is_waited_for_when_all_else_is_done() -> None:
    running = FoldStatus(1, "in training", 7, None, False)
    name = "nnUNetTrainer__nnUNetPlans__2d"
    command = f"nnUNetv2_train {NAME} 2d 1 --c --npz"
    assert says(model("2d", trained(0), running)) == f"wait for fold 1 of {name}; should it not run any more: {command}"
    assert says(model("2d", running, of=3)) == f"nnUNetv2_train {NAME} 2d 0 --npz"


def test_a_model_without_its_data_can_only_predict() -> None:
    installed = model("3d_fullres", FoldStatus("all", "trained", None, None, False), trainer="nnUNetTrainer_e20")
    command = "finished; predict with nnUNetv2_predict -d 41 -i INPUT_FOLDER -o OUTPUT_FOLDER -c 3d_fullres -f all"
    assert says(installed, configurations=[], training_cases=0) == f"{command} -tr nnUNetTrainer_e20"
    validated = complete("3d_fullres")
    command = "finished; predict with nnUNetv2_predict -d 41 -i INPUT_FOLDER -o OUTPUT_FOLDER -c 3d_fullres -f 0 1"
    assert says(validated, configurations=[], training_cases=0) == command
    assert says(configurations=[], training_cases=0) == "put images and labels into nnUNet_raw, or install a model"
