"""What exists of a dataset, from raw images to a chosen model, and the next command to run.

Looks at names and small documents only; no image and no checkpoint is read.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError, nnUNetError
from nnunet_lite.model_selection.inference_information import read_inference_information
from nnunet_lite.model_selection.next_command import next_command
from nnunet_lite.models.model_names import Fold, parse_model_folder_name
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunet_lite.plans.plans_manager import PlansManager, available_plans, load_plans
from nnunet_lite.plans.raw_dataset import list_image_cases
from nnunet_lite.utilities.files import load_json, subdirs, subfiles

_FOLDS = 5  # of a cross-validation, unless splits_final.json says otherwise
_MOST_EPOCHS = 10**9  # that a document can name without being damaged
_RECENT = 3600.0  # seconds since the last sign of life of a training that may still be running


class FoldStatus(NamedTuple):
    """One fold of a model."""

    fold: Fold
    state: str  # trained, in training, interrupted, not trained
    epoch: int | None  # that were finished
    dice: float | None  # mean foreground Dice of its validation
    probabilities: bool


class ModelStatus(NamedTuple):
    """A model folder."""

    folder: Path
    folds: list[FoldStatus]
    number_of_folds: int

    @property
    def is_complete(self) -> bool:
        """Whether all folds of the cross-validation are trained and validated."""
        return {fold.fold for fold in self.folds if fold.dice is not None} >= set(range(self.number_of_folds))

    @property
    def fold_to_train(self) -> int | None:
        """The first fold of the cross-validation that was not begun."""
        begun = {fold.fold for fold in self.folds if fold.state != "not trained"}
        return next((fold for fold in range(self.number_of_folds) if fold not in begun), None)


class ConfigurationStatus(NamedTuple):
    """One configuration of one plans file."""

    plans: str
    configuration: str
    preprocessed: int  # cases
    data: str = ""  # name of their folder
    previous_stage: str | None = None


class DatasetStatus(NamedTuple):
    """All there is of one dataset."""

    name: str
    training_cases: int
    test_cases: int
    fingerprint: bool
    configurations: list[ConfigurationStatus]
    models: list[ModelStatus]
    chosen: list[str]  # models of inference_information.json
    considered: list[str]  # models that were compared then
    next_command: str
    fault: str | None  # why less is known than might be


def dataset_status(name: str) -> DatasetStatus:
    """Look at a dataset in all three folders.

    Args:
        name: DatasetXXX_NAME.
    """
    faults: list[str] = []
    training, test = (_cases(name, folder, faults) for folder in ("imagesTr", "imagesTs"))
    preprocessed = _below(nnUNet_preprocessed, name)
    fingerprint = preprocessed is not None and (preprocessed / "dataset_fingerprint.json").is_file()
    configurations = list(_configurations(preprocessed, faults)) if preprocessed is not None else []
    results = _below(nnUNet_results, name)
    models = list(_models(results, _number_of_folds(preprocessed))) if results is not None else []
    information = read_inference_information(results) if results is not None else None
    chosen, considered = (information.chosen, information.considered) if information is not None else ([], [])
    fault = "; ".join(faults) or None
    status = DatasetStatus(name, training, test, fingerprint, configurations, models, chosen, considered, "", fault)
    return status._replace(next_command=next_command(status))


def _below(root: Any, name: str) -> Path | None:
    folder = Path(os.fspath(root), name) if root.is_set() else None
    return folder if folder is not None and folder.is_dir() else None


def _cases(name: str, folder: str, faults: list[str]) -> int:
    raw = _below(nnUNet_raw, name)
    if raw is None:
        return 0
    try:
        document = load_json(raw / "dataset.json")
        if folder == "imagesTr" and isinstance(document.get("dataset"), dict):
            return len(document["dataset"])
        if not (raw / folder).is_dir():
            return 0
        return len(list_image_cases(raw / folder, document["file_ending"]))
    except (OSError, ValueError, KeyError, AttributeError, nnUNetError) as error:
        faults.append(" ".join(str(error).split()))
        return 0


def _configurations(folder: Path, faults: list[str]) -> Iterator[ConfigurationStatus]:
    for plans in available_plans(folder):
        try:
            manager = PlansManager(load_plans(folder / f"{plans}.json"))
            for name in manager.available_configurations:
                configuration = manager.get_configuration(name)
                data, previous = folder / configuration.data_identifier, configuration.previous_stage_name
                cases = len(subfiles(data, ".pkl")) if data.is_dir() else 0
                yield ConfigurationStatus(plans, name, cases, data.name, previous)
        except nnUNetError as error:
            faults.append(str(error))


def _number_of_folds(preprocessed: Path | None) -> int:
    try:
        splits = load_json(preprocessed / "splits_final.json") if preprocessed is not None else None
    except (OSError, ValueError):
        return _FOLDS
    return len(splits) if isinstance(splits, list) and splits else _FOLDS


def _models(results: Path, number_of_folds: int) -> Iterator[ModelStatus]:
    for name in subdirs(results, join=False):
        folder = results / name
        if _is_model(folder):
            folds = [_fold(folder / fold) for fold in subdirs(folder, "fold_", join=False)]
            yield ModelStatus(folder, sorted(folds, key=lambda status: str(status.fold)), number_of_folds)


def _is_model(folder: Path) -> bool:
    try:
        parse_model_folder_name(folder.name)
    except ArgumentError:
        return False
    return (folder / "plans.json").is_file()


def _fold(folder: Path) -> FoldStatus:
    text = folder.name.removeprefix("fold_")
    validation = folder / "validation"
    dice = _dice(validation / "summary.json")
    state = "not trained"
    if (folder / "checkpoint_final.pth").is_file():
        state = "trained"
    elif any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")) or _age(folder) < _RECENT:
        state = "in training" if _age(folder) < _RECENT else "interrupted"
    probabilities = validation.is_dir() and bool(subfiles(validation, ".npz"))
    return FoldStatus(
        int(text) if text.isdecimal() else text, state, _epochs(folder, state == "trained"), dice, probabilities
    )


def _age(folder: Path) -> float:
    """Seconds since the newest log or metrics of a fold were written to."""
    files = [*folder.glob("training_log_*.txt"), *folder.glob("metrics.jsonl"), *folder.glob("progress.png")]
    return min((time.time() - file.stat().st_mtime for file in files), default=math.inf)


def _epochs(folder: Path, is_finished: bool) -> int | None:
    """Epochs that were finished, by metrics.jsonl, or by upstream's log, which names those that begin."""
    file = folder / "metrics.jsonl"
    if file.is_file():
        lines = file.read_text(errors="replace").splitlines()
        for line in reversed(lines):
            try:
                return epoch_of(json.loads(line)) + 1
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    numbers = [
        int(line.split()[-1][:9])
        for log in sorted(folder.glob("training_log_*.txt"))
        for line in log.read_text(errors="replace").splitlines()
        if " Epoch " in f" {line}" and line.split()[-1].isdecimal()
    ]
    return max(numbers) + is_finished if numbers else None


def epoch_of(row: Any) -> int:
    """The epoch of a line of metrics.jsonl. Raises ValueError, KeyError or TypeError for one that is none."""
    epoch = row["epoch"]
    if not 0 <= epoch <= _MOST_EPOCHS:  # NaN neither
        raise ValueError(f"epoch is no number from 0 to {_MOST_EPOCHS}")
    return int(epoch)


def _dice(summary: Path) -> float | None:
    try:
        return float(load_json(summary)["foreground_mean"]["Dice"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
