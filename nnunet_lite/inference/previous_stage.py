"""The first stage of a cascade at prediction: which model it is and where its predictions go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.output_names import refuse_other_ending
from nnunet_lite.inference.prediction_cases import find_cases, output_folder
from nnunet_lite.models.model_names import Fold, model_folder_name, parse_model_folder_name
from nnunet_lite.models.trained_model import TrainedModel
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.parts import Part


def find_previous_stage(
    model_folder: PathLike, stage: str, folds: Fold | Sequence[Fold] | None, checkpoint_name: str
) -> Path:
    """The model folder of a cascade's previous stage: beside the cascade's, of the trainer whose stage it learned from.

    Args:
        model_folder: of the cascade.
        stage: name of the previous configuration.
        folds, checkpoint_name: of the cascade.

    Raises:
        ArgumentError: there is none; says how to predict with what there is.
    """
    folder = Path(model_folder).resolve()
    advice = f"predict the same images with {stage} first, then name that folder with -prev_stage_predictions"
    try:
        name = parse_model_folder_name(folder.name)
    except ArgumentError as error:
        raise ArgumentError(
            f"{folder} is the second stage of a cascade and does not lie beside its first; {advice}"
        ) from error
    model = TrainedModel(folder)
    available = model.available_folds(checkpoint_name) if folds is None else folds
    fold = available if isinstance(available, (int, str)) else available[0]
    own = model.load_fold(fold, checkpoint_name).get("nnunet_lite") or {}
    trainer = own.get("hyperparameters", {}).get("previous_stage_trainer") or name.trainer
    previous = folder.parent / model_folder_name(trainer, name.plans, stage)
    if not previous.is_dir():
        raise ArgumentError(f"{folder.name} is the second stage of a cascade, but there is no {previous}; {advice}")
    return previous


def previous_stage_output(output: str, file_ending: str, stage: str) -> Path:
    """Where its predictions go: a folder in that of the cascade's. Raises ArgumentError for another image's ending."""
    refuse_other_ending(output, file_ending)
    return (output_folder(output, file_ending) or Path()) / f"predicted_{stage}"


def cases_without(
    failed: Collection[str], source: str, output: str, dataset_json: Mapping[str, Any], part: Part
) -> tuple[list[list[str]], list[str]]:
    """Image files and outputs (without file ending) of the cases of a part whose first stage is predicted.

    Args:
        failed: names of those whose first stage failed.
        source, output: of the command.
    """
    cases = [case for case in part.of(find_cases(source, output, dataset_json)) if case.name not in failed]
    return [list(case.image) for case in cases], [str(case.output) for case in cases]
