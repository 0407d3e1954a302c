"""The previous stage of a cascade: whose predictions are learned from, and whether they are all there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.models.model_names import get_output_folder, model_folder_name, parse_model_folder_name
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training import fold_folder, splits
from nnunet_lite.training.trainer_names import split_folder_part
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
    model = Path(folder).parent.parent
    if missing and trainer.previous_stage_trainer is not None and not model.is_dir():
        raise DatasetError(
            f"--previous-stage-trainer {trainer.previous_stage_trainer}: there is no {model}; {_neighbours(model)}"
            f"make it: {_commands(trainer, Path(folder), missing)}"
        )
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
            f"delete them, then make them: {_commands(trainer, Path(folder), unfit)}"
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


def _neighbours(model: Path) -> str:
    """Which models of the same plans and stage there are instead, the most similar first."""
    others = other_trainers(model)
    if not others:
        return "no other trainer has one; "
    wanted = parse_model_folder_name(model.name).trainer
    return f"give one of those there are ({', '.join(difflib.get_close_matches(wanted, others, _SHOWN, 0.0))}), or "


def _advice(trainer: Any, folder: Path, missing: Sequence[str], wanted: Sequence[str]) -> str:
    commands = f"make them: {_commands(trainer, folder, missing)}"
    others = _complete_elsewhere(trainer, folder, wanted)
    if others:
        return f"take those of another trainer: --previous-stage-trainer {' or '.join(others)}; or {commands}"
    return commands


def _commands(trainer: Any, folder: Path, missing: Sequence[str]) -> str:
    """One shell line of the trainings (validations, where finished) that predict these cases at their end."""
    model = folder.parent.parent
    fold_of = _validation_folds(trainer)
    folds = [str(fold) for fold in sorted({fold_of[key] for key in missing if key in fold_of})]
    if not all(key in fold_of for key in missing):  # they train in every fold
        folds.append("all")
    finished = [fold for fold in folds if (model / f"fold_{fold}" / fold_folder.FINAL).is_file()]
    unfinished = [fold for fold in folds if fold not in finished]
    lines = []
    for group, more in ((unfinished, ""), (finished, " --val")):
        if len(group) > 1:
            lines.append(f"for fold in {' '.join(group)}; do {_command(trainer, model, '$fold')}{more}; done")
        else:
            lines += [_command(trainer, model, fold) + more for fold in group]
    return "; ".join(lines)


def _command(trainer: Any, model: Path, fold: str) -> str:
    """The training of a fold of the previous stage, with all flags that are part of its folder's name."""
    part, plans, stage = parse_model_folder_name(model.name)
    if part == parse_model_folder_name(Path(trainer.output_folder_base).name).trainer:
        name, flags = type(trainer).__name__, trainer.overrides.flags()
    else:
        name, flags = split_folder_part(part)
    words = ["nnUNetv2_train", trainer.plans_manager.dataset_name, stage, fold]
    words += ["-tr", name] * (name != "nnUNetTrainer") + ["-p", plans] * (plans != "nnUNetPlans")
    words += ["-device", trainer.device.type] * (trainer.device.type != "cuda")
    return " ".join(words + flags)


def _validation_folds(trainer: Any) -> dict[str, int]:
    """In which fold each case validates; nothing where the splits are not made yet or cannot be read."""
    file = Path(trainer.preprocessed_dataset_folder_base, splits.SPLITS_FILE)
    if not file.is_file():
        identifiers = trainer.dataset_class.get_identifiers(trainer.preprocessed_dataset_folder)
        content: Any = splits.generate_crossval_split(identifiers)
    else:
        content = load_json(file)
    return {key: fold for fold, split in reversed(list(enumerate(content))) for key in split["val"]}


def other_trainers(model: Path) -> list[str]:
    """First parts of the names of all other models of the same plans and configuration."""
    _, plans, stage = parse_model_folder_name(model.name)
    ending = model_folder_name("", plans, stage)
    names = subdirs(model.parent, join=False) if model.parent.is_dir() else []
    return [name.removesuffix(ending) for name in names if name.endswith(ending) and name != model.name]


def _complete_elsewhere(trainer: Any, folder: Path, wanted: Sequence[str]) -> list[str]:
    """Other trainers whose previous stage, of the same plans, has predicted everything."""
    model = folder.parent.parent
    _, plans, stage = parse_model_folder_name(model.name)
    there = {name: model.parent / model_folder_name(name, plans, stage) for name in other_trainers(model)}
    below = Path(NEXT_STAGE_FOLDER, trainer.configuration_name)
    return [name for name, other in there.items() if not _missing(other / below, wanted)]
