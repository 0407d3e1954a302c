"""Names of model folders and of folds: Trainer__Plans__Configuration, fold_0, 0_1_2; nothing is read, torch neither."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.models.model_folders import meant_folds
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name
from nnunet_lite.utilities.files import PathLike

Fold = int | str  # a number or "all"

_SEPARATOR = "__"
_PRETRAINED_PLANS = "ptPlans"  # how the names of plans for nnssl checkpoints begin


class ModelName(NamedTuple):
    """What the name of a model folder says."""

    trainer: str
    plans: str
    configuration: str


def model_folder_name(trainer: str, plans: str, configuration: str) -> str:
    """Trainer__Plans__Configuration."""
    return _SEPARATOR.join((trainer, plans, configuration))


def parse_model_folder_name(name: str) -> ModelName:
    """The inverse of `model_folder_name`.

    Plans may hold the separator, too, as those for nnssl checkpoints do; before those, which begin with ptPlans, the
    trainer may (PretrainedTrainer_adam__nomirroring).

    Raises:
        ArgumentError: any other name.
    """
    end = name.find(_SEPARATOR + _PRETRAINED_PLANS)
    trainer, _, rest = name.partition(_SEPARATOR) if end < 0 else (name[:end], "", name[end + len(_SEPARATOR) :])
    plans, _, configuration = rest.rpartition(_SEPARATOR)
    if not (trainer and plans and configuration):
        raise ArgumentError(f"{name!r} is no model folder; expected Trainer__Plans__Configuration")
    return ModelName(trainer, plans, configuration)


def convert_trainer_plans_config_to_identifier(trainer_name: str, plans_identifier: str, configuration: str) -> str:
    """Upstream's name of `model_folder_name`."""
    return model_folder_name(trainer_name, plans_identifier, configuration)


def convert_identifier_to_trainer_plans_config(identifier: str) -> ModelName:
    """Upstream's name of `parse_model_folder_name`."""
    return parse_model_folder_name(Path(identifier).name)


def get_output_folder(
    dataset_name_or_id: str | int,
    trainer_name: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    configuration: str = "3d_fullres",
    fold: Fold | None = None,
) -> str:
    """Where a model (or one of its folds) of a dataset lies below nnUNet_results. Raises DatasetError, unknown id."""
    dataset = str(dataset_name_or_id)
    if not dataset.startswith("Dataset"):
        dataset = maybe_convert_to_dataset_name(dataset)
    folder = nnUNet_results / dataset / model_folder_name(trainer_name, plans_identifier, configuration)
    return str(folder if fold is None else folder / f"fold_{fold}")


def parse_dataset_trainer_plans_configuration_from_path(path: PathLike) -> tuple[str, str, str, str]:
    """(dataset, trainer, plans, configuration) from any path inside a model folder. Raises ArgumentError."""
    parts = Path(path).parts
    for dataset, name in zip(parts[:-1], parts[1:], strict=True):
        if dataset.startswith("Dataset") and name.count(_SEPARATOR) >= 2:
            return (dataset, *parse_model_folder_name(name))
    raise ArgumentError(f"{path} lies in no model folder DatasetXXX_Name/Trainer__Plans__Configuration")


def folds_tuple_to_string(folds: Iterable[Fold]) -> str:
    """(0, 1, 2) -> "0_1_2"."""
    return "_".join(str(fold) for fold in folds)


def folds_string_to_tuple(folds: str) -> tuple[Fold, ...]:
    """ "0_1_2" -> (0, 1, 2)."""
    return tuple(parse_fold(fold) for fold in folds.split("_"))


def parse_fold(fold: Fold) -> Fold:
    """A fold number or `all`. Raises ArgumentError."""
    text = str(fold)
    if text == "all":
        return text
    if not text.isdecimal():
        raise ArgumentError(f"fold {fold!r}: expected a whole number or 'all'{meant_folds(text)}")
    return int(text)
