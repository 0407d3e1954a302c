"""The previous stage of a cascade: whose predictions are learned from, and whether they are all there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.models.trained_model import get_output_folder, model_folder_name, parse_model_folder_name
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training import fold_folder, splits
from nnunet_lite.utilities.files import load_json, subdirs

NEXT_STAGE_FOLDER = "predicted_next_stage"  # below a model's folder; a folder for each next stage in it

_ENDINGS = (".b2nd", ".npy", ".npz")
_SHOWN = 5


def take_previous_stage_from(trainer: Any, name: str) -> None:
    """Learn from the previous stage of another trainer.

    Args:
        trainer: of the cascade's next stage.
        name: first part of the name of that model's folder, with the flags that are part of it (`nnUNetTrainer_e20`).

    Raises:
        ArgumentError: this configuration has no previous stage.
    """
    stage = trainer.configuration_manager.previous_stage_name
    if stage is None:
        raise ArgumentError(
            f"--previous-stage-trainer {name}: {trainer.configuration_name} has no previous stage; leave the flag out"
        )
    plans = trainer.plans_manager
    folder = Path(get_output_folder(plans.dataset_name, name, plans.plans_name, stage))
    trainer.previous_stage_trainer = name
    trainer.folder_with_segs_from_previous_stage = str(folder / NEXT_STAGE_FOLDER / trainer.configuration_name)


def require_previous_stage(trainer: Any, keys: Iterable[str]) -> None:
    """Check that the previous stage has predicted all these cases, at the size they have now.

    Raises:
        DatasetError: predictions are missing or do not fit; names the cases and the commands that make them.
    """
    folder = trainer.folder_with_segs_from_previous_stage
    if folder is None:
        return
    wanted = sorted(set(keys))
    missing = _missing(Path(folder), wanted)
    if missing:
        names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DatasetError(
            f"{trainer.configuration_name} needs a prediction of {trainer.configuration_manager.previous_stage_name} "
            f"for each of its {len(wanted)} cases, but {len(missing)} are missing in {folder} ({names}); "
            f"{_advice(trainer, Path(folder), missing, wanted)}"
        )
    unfit = [key for key in wanted if not _fits(trainer, key)]
    if unfit:
        names = ", ".join(unfit[:_SHOWN]) + (", ..." if len(unfit) > _SHOWN else "")
        raise DatasetError(
            f"{folder}: {len(unfit)} predictions are damaged, or not of the size of the preprocessed case ({names}); "
            f"delete them, then {_commands(trainer, Path(folder), unfit)}"
        )


def _missing(folder: Path, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if not any((folder / f"{key}{ending}").is_file() for ending in _ENDINGS)]


def _fits(trainer: Any, key: str) -> bool:
    """Whether a prediction can be opened and has the shape of its case; no voxel is read."""
    if trainer.dataset_class is not nnUNetDatasetBlosc2:
        return True  # arrays of older versions would have to be unpacked as a whole
    dataset = nnUNetDatasetBlosc2(
        trainer.preprocessed_dataset_folder, [key], trainer.folder_with_segs_from_previous_stage
    )
    try:
        data, _, previous = dataset.load_arrays(key)
    except DatasetError:
        return False
    return tuple(previous.shape) == tuple(data.shape[1:])


def _advice(trainer: Any, folder: Path, missing: Sequence[str], wanted: Sequence[str]) -> str:
    advice = _commands(trainer, folder, missing)
    others = _complete_elsewhere(trainer, folder, wanted)
    if others:
        advice += f"; or take those of another trainer: --previous-stage-trainer {' or '.join(others)}"
    return advice


def _commands(trainer: Any, folder: Path, missing: Sequence[str]) -> str:
    """The trainings (or validations, where the training is finished) whose final validation predicts these cases."""
    model = folder.parent.parent
    part, plans, stage = parse_model_folder_name(model.name)
    own_part = parse_model_folder_name(Path(trainer.output_folder_base).name).trainer
    name = type(trainer).__name__ if part == own_part else part
    command = f"nnUNetv2_train {trainer.plans_manager.dataset_name} {stage} FOLD -tr {name} -p {plans}"
    fold_of = _validation_folds(trainer)
    folds = sorted({fold_of[key] for key in missing if key in fold_of})
    commands = []
    for fold in folds:
        finished = (model / f"fold_{fold}" / fold_folder.FINAL).is_file()
        commands.append(command.replace("FOLD", str(fold)) + (" --val" if finished else ""))
    if not all(key in fold_of for key in missing):  # they train in every fold
        commands.append(command.replace("FOLD", "all"))
    flags = ""
    if part == own_part != name:
        flags = f" (with the flags of this training that are part of the folder's name {part})"
    return f"make them: {'; '.join(commands)}{flags}"


def _validation_folds(trainer: Any) -> dict[str, int]:
    """In which fold each case validates; nothing where the splits are not made yet or cannot be read."""
    file = Path(trainer.preprocessed_dataset_folder_base, splits.SPLITS_FILE)
    if not file.is_file():
        identifiers = trainer.dataset_class.get_identifiers(trainer.preprocessed_dataset_folder)
        content: Any = splits.generate_crossval_split(identifiers)
    else:
        content = load_json(file)
    return {key: fold for fold, split in reversed(list(enumerate(content))) for key in split["val"]}


def _complete_elsewhere(trainer: Any, folder: Path, wanted: Sequence[str]) -> list[str]:
    """Other trainers whose previous stage, of the same plans, has predicted everything."""
    model = folder.parent.parent
    _, plans, stage = parse_model_folder_name(model.name)
    ending = model_folder_name("", plans, stage)
    found = []
    for name in subdirs(model.parent, join=False) if model.parent.is_dir() else []:
        there = model.parent / name / NEXT_STAGE_FOLDER / trainer.configuration_name
        if name.endswith(ending) and name != model.name and not _missing(there, wanted):
            found.append(name.removesuffix(ending))
    return found
