"""The validation cases of all folds as one folder with one summary.json: what a cross-validation says of a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.exceptions import DatasetError, PathError
from nnunet_lite.models.model_names import Fold, folds_tuple_to_string, parse_model_folder_name
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.overrides import trainer_and_flags
from nnunet_lite.utilities.files import PathLike, copy_file, load_json, subfiles

DOCUMENTS = ("dataset.json", "plans.json")


class FoldPredictions(NamedTuple):
    """What the final validation of one fold has left."""

    fold: Fold
    folder: Path
    files: list[str]  # names of the segmentations


def accumulate_cv_results(
    trained_model_folder: PathLike,
    merged_output_folder: PathLike,
    folds: Sequence[Fold],
    num_processes: int | None = None,
    overwrite: bool = True,
) -> None:
    """Copy the validation segmentations of several folds into one folder and evaluate them there.

    nnU-Net v2 2.8.1 behaviour (spec 03, 6.3). Everything is checked before anything is removed or written.

    Args:
        trained_model_folder: Trainer__Plans__Configuration.
        merged_output_folder: gets the segmentations, dataset.json, plans.json and summary.json.
        folds: numbers, or `all`.
        num_processes: background processes of the evaluation, 0 for none.
        overwrite: remove what lies there first; False keeps the segmentations that are there.

    Raises:
        PathError: no such model, or a fold is not validated (says the command that does it).
        DatasetError: a case belongs to two folds, or references are missing.
    """
    model, merged = Path(trained_model_folder), Path(merged_output_folder)
    require_model(model)
    dataset_json = load_json(model / "dataset.json")
    plans_manager = PlansManager(load_json(model / "plans.json"))
    predictions = list(validated_folds(model, folds, dataset_json["file_ending"]))
    _require_each_case_once(predictions)
    references = reference_folder(plans_manager.dataset_name)
    if overwrite and merged.is_dir():
        shutil.rmtree(merged)
    for name in DOCUMENTS:
        copy_file(model / name, merged / name)
    copied = 0
    for fold in predictions:
        for name in fold.files:
            if overwrite or not (merged / name).is_file():
                copied += copy_file(fold.folder / name, merged / name)
    if not copied and (merged / "summary.json").is_file():
        return
    evaluate_crossvalidation(merged, references, plans_manager, dataset_json, num_processes)


def evaluate_crossvalidation(
    folder: Path,
    references: Path,
    plans_manager: PlansManager,
    dataset_json: Mapping[str, Any],
    num_processes: int | None,
    cases: Sequence[str] | None = None,
) -> None:
    """Write summary.json of a folder of predictions by the labels or regions of a model; of some cases, or of all."""
    labels = plans_manager.get_label_manager(dataset_json)
    compute_metrics_on_folder(
        references,
        folder,
        folder / "summary.json",
        plans_manager.image_reader_writer_class(),
        dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        labels.ignore_label,
        num_processes,
        cases=cases,
    )


def merged_folder(model: Path, folds: Sequence[Fold]) -> Path:
    """Where the cross-validation of a model is put together, unless somebody names another place."""
    return model / f"crossval_results_folds_{folds_tuple_to_string(folds)}"


def require_model(folder: Path) -> None:
    """Raise PathError unless a folder holds the documents of a model."""
    missing = [name for name in DOCUMENTS if not (folder / name).is_file()]
    if missing:
        what = f"it has no {' and no '.join(missing)}" if folder.is_dir() else "there is no such folder"
        raise PathError(f"{folder} is no trained model: {what}; train it with {train_command(folder, 'FOLD')}")


def validated_folds(model: Path, folds: Sequence[Fold], file_ending: str) -> Iterator[FoldPredictions]:
    """The validation segmentations of each fold.

    Raises:
        PathError: of all folds that are not validated, with the commands that are missing.
    """
    found, missing = [], []
    for fold in folds:
        validation = model / f"fold_{fold}" / "validation"
        files = subfiles(validation, file_ending, join=False) if validation.is_dir() else []
        if files and (validation / "summary.json").is_file():
            found.append(FoldPredictions(fold, validation, files))
        else:
            missing.append(fold)
    if missing:
        lines = [f"  {command_for_missing_validation(model, fold)}" for fold in missing]
        text = ", ".join(map(str, missing))
        raise PathError("\n".join([f"{model}: no finished validation of fold {text}. Run", *lines]))
    yield from found


def validation_cases(model: Path, folds: Sequence[Fold], file_ending: str) -> list[str]:
    """Names of the validation cases of all folds together."""
    return [name[: -len(file_ending)] for fold in validated_folds(model, folds, file_ending) for name in fold.files]


def command_for_missing_validation(model: Path, fold: Fold, probabilities: bool = False) -> str:
    """What makes the validation of a fold: its validation alone if it is trained, else its training."""
    trained = (model / f"fold_{fold}" / "checkpoint_final.pth").is_file()
    begun = any((model / f"fold_{fold}" / name).is_file() for name in ("checkpoint_latest.pth", "checkpoint_best.pth"))
    flags = ["--val"] if trained else ["--c"] if begun else []
    return " ".join([train_command(model, fold), *flags, *(["--npz"] if probabilities else [])])


def train_command(model: Path, fold: Fold) -> str:
    """nnUNetv2_train as it makes a model folder."""
    name = parse_model_folder_name(model.name)
    trainer, own_flags = trainer_and_flags(name.trainer)
    given = (("-tr", trainer, "nnUNetTrainer"), ("-p", name.plans, "nnUNetPlans"))
    flags = [f"{flag} {value}" for flag, value, default in given if value != default]
    return " ".join(["nnUNetv2_train", model.parent.name, name.configuration, str(fold), *flags, *own_flags])


def _require_each_case_once(predictions: Sequence[FoldPredictions]) -> None:
    owner: dict[str, Fold] = {}
    for fold in predictions:
        for name in fold.files:
            if name in owner:
                raise DatasetError(
                    f"{fold.folder.parents[1]}: {name} is a validation case of folds {owner[name]} and {fold.fold}, "
                    "which were trained with different splits; validate them anew with one splits_final.json, or name "
                    "others"
                )
            owner[name] = fold.fold


def reference_folder(dataset_name: str) -> Path:
    """The reference segmentations of the training cases: labelsTr, or the copy that preprocessing made.

    Raises:
        DatasetError: there is neither.
    """
    candidates = []
    for root, parts in ((nnUNet_raw, ("labelsTr",)), (nnUNet_preprocessed, ("gt_segmentations",))):
        if root.is_set():
            candidates.append(Path(os.fspath(root), dataset_name, *parts))
    for folder in candidates:
        if folder.is_dir():
            return folder
    listed = " nor ".join(map(str, candidates)) or "nnUNet_raw and nnUNet_preprocessed are not set"
    raise DatasetError(f"No reference segmentations of {dataset_name}: there is neither {listed}")
