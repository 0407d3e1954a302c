"""The next command on the way from raw images to a model that is chosen and ready to predict; for nnUNetv2_status.

Each answer, run as it stands, leads on: whoever runs what is said and asks again arrives at `finished`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lite.model_selection.accumulate_cv_results import train_command
from nnunet_lite.models.model_names import ModelName, parse_model_folder_name
from nnunet_lite.plans.raw_dataset import dataset_name_to_id

if TYPE_CHECKING:
    from nnunet_lite.model_selection.dataset_status import ConfigurationStatus, DatasetStatus, ModelStatus

NOTHING_TO_DO = "put images and labels into nnUNet_raw, or install a model"

_DEFAULT_FOLDS = 5  # that commands look for by themselves


def next_command(status: DatasetStatus) -> str:
    """The first thing that is missing on the way to predictions."""
    number = dataset_name_to_id(status.name)
    preprocessed = any(entry.preprocessed for entry in status.configurations)
    if status.training_cases and not preprocessed and not status.chosen:  # they may be deleted when all is done
        check = "" if status.fingerprint else " --verify_dataset_integrity"
        return f"nnUNetv2_plan_and_preprocess -d {number}{check}"
    return (
        _preprocessing(status)
        or _training(status)
        or _comparison(status)
        or _waiting(status)
        or _prediction(status)
        or NOTHING_TO_DO
    )


def _preprocessing(status: DatasetStatus) -> str | None:
    """The rest of a preprocessing that was interrupted, with the configurations that it had not begun."""
    for plans in dict.fromkeys(entry.plans for entry in status.configurations):
        unfinished: dict[str, ConfigurationStatus] = {}  # configurations may share their data
        for entry in status.configurations:
            if entry.plans == plans and entry.preprocessed < status.training_cases:
                unfinished.setdefault(entry.data, entry)
        if any(entry.preprocessed for entry in unfinished.values()):
            names = " ".join(entry.configuration for entry in unfinished.values())
            return f"nnUNetv2_preprocess -d {dataset_name_to_id(status.name)} -plans_name {plans} -c {names}"
    return None


def _training(status: DatasetStatus) -> str | None:
    """The rest of a training, a validation or another fold of a model that was begun, else a first training."""
    ready = {(entry.plans, entry.configuration): entry for entry in status.configurations if entry.preprocessed}

    def known(model: ModelStatus) -> ConfigurationStatus | None:
        name = parse_model_folder_name(model.folder.name)
        return ready.get((name.plans, name.configuration))

    trainable = [model for model in status.models if known(model) is not None]
    for model in sorted(trainable, key=lambda model: getattr(known(model), "previous_stage", None) is not None):
        command = _training_of_model(model)
        if command is not None:
            return command
    if status.models or not ready:
        return None
    entries = list(ready.values())
    best = next((entry for entry in entries if entry.configuration == "3d_fullres"), entries[0])
    plans = "" if best.plans == "nnUNetPlans" else f" -p {best.plans}"
    return f"nnUNetv2_train {dataset_name_to_id(status.name)} {best.configuration} 0 --npz{plans}"


def _training_of_model(model: ModelStatus) -> str | None:
    for fold in model.folds:
        if fold.state == "interrupted":
            return f"{train_command(model.folder, fold.fold)} --c --npz"
        if fold.state == "trained" and fold.dice is None:
            return f"{train_command(model.folder, fold.fold)} --val --npz"
    if any(fold.fold == "all" for fold in model.folds) or model.is_complete:
        return None
    missing = model.fold_to_train
    return None if missing is None else f"{train_command(model.folder, missing)} --npz"


def _comparison(status: DatasetStatus) -> str | None:
    """nnUNetv2_find_best_configuration for models of one trainer and plans, until it has seen all of them."""
    planned = {(entry.plans, entry.configuration) for entry in status.configurations}  # an installed model is not
    groups: dict[tuple[str, str], list[ModelStatus]] = defaultdict(list)
    for model in status.models:
        name = parse_model_folder_name(model.folder.name)
        if model.is_complete and (name.plans, name.configuration) in planned:
            groups[name.trainer, name.plans].append(model)
    if status.chosen:
        chosen = parse_model_folder_name(status.chosen[0])
        group = chosen.trainer, chosen.plans
        if not {model.folder.name for model in groups[group]} - set(status.considered):
            return None
    elif groups:
        group = max(groups, key=lambda name: len(groups[name]))
    else:
        return None
    models = groups[group]
    words = [f"nnUNetv2_find_best_configuration {dataset_name_to_id(status.name)} -c"]
    words += sorted(parse_model_folder_name(model.folder.name).configuration for model in models)
    words += _trainer_and_plans(parse_model_folder_name(models[0].folder.name))
    folds = range(models[0].number_of_folds)
    if len(folds) != _DEFAULT_FOLDS:
        words += ["-f", *map(str, folds)]
    if len(models) > 1 and not all(_has_probabilities(model) for model in models):
        words.append("--compute_missing")
    return " ".join(words)


def _has_probabilities(model: ModelStatus) -> bool:
    return all(fold.probabilities for fold in model.folds if fold.fold in range(model.number_of_folds))


def _trainer_and_plans(name: ModelName) -> list[str]:
    given = (("-p", name.plans, "nnUNetPlans"), ("-tr", name.trainer, "nnUNetTrainer"))
    return [word for flag, value, default in given if value != default for word in (flag, value)]


def _waiting(status: DatasetStatus) -> str | None:
    """What to do where nothing is left but trainings that seem to run."""
    for model in status.models:
        for fold in model.folds:
            if fold.state == "in training" and not status.chosen:
                command = f"{train_command(model.folder, fold.fold)} --c --npz"
                return f"wait for fold {fold.fold} of {model.folder.name}; should it not run any more: {command}"
    return None


def _prediction(status: DatasetStatus) -> str | None:
    """How to predict with what is there."""
    if status.chosen:
        instructions = Path(status.models[0].folder.parent if status.models else "", "inference_instructions.txt")
        return f"finished; predict with the commands in {instructions}"
    for model in status.models:
        folds = [str(fold.fold) for fold in model.folds if fold.state == "trained"]
        if folds:
            name = parse_model_folder_name(model.folder.name)
            words = ["nnUNetv2_predict -d", str(dataset_name_to_id(status.name)), "-i INPUT_FOLDER -o OUTPUT_FOLDER"]
            words += ["-c", name.configuration, "-f", *folds, *_trainer_and_plans(name)]
            return f"finished; predict with {' '.join(words)}"
    return None
