"""Which cases the members of an ensemble have probabilities of, and whether the members belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.utilities.files import subfiles
from nnunet_lite.utilities.wording import first_few

ENDING = ".npz"


def common_cases(folders: Sequence[Path]) -> list[str]:
    """Cases of which every folder has probabilities.

    Raises:
        DatasetError: a folder is missing, holds no probabilities, or not those of the same cases.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {folder}; expected one with predicted probabilities")
        found.append({name[: -len(ENDING)] for name in subfiles(folder, ENDING, join=False)})
        if not found[-1]:
            raise DatasetError(f"{folder} holds no probabilities (*.npz); predict with --save_probabilities")
    cases = set().union(*found)
    missing = [
        f"{folder} has none of {first_few(sorted(cases - names))}"
        for folder, names in zip(folders, found, strict=True)
        if names != cases
    ]
    if missing:
        raise DatasetError(f"The folders hold probabilities of different cases: {'; '.join(missing)}")
    return sorted(cases)


def validation_cases(model: Path, folds: Sequence[int | str]) -> dict[str, Path]:
    """Probabilities of each validation case of a model, whatever its fold.

    Raises:
        DatasetError: folds without probabilities (names them), or a case of two folds.
    """
    files: dict[str, Path] = {}
    missing = []
    for fold in folds:
        validation = model / f"fold_{fold}" / "validation"
        found = subfiles(validation, ENDING) if validation.is_dir() else []
        if not found:
            missing.append(str(fold))
        for file in map(Path, found):
            if file.stem in files:
                raise DatasetError(
                    f"{file} and {files[file.stem]} are the same case in two folds: they were trained with different "
                    "splits"
                )
            files[file.stem] = file
    if missing:
        raise DatasetError(
            f"{model} has no probabilities of the validation of fold {', '.join(missing)}; make them with "
            "nnUNetv2_train ... --val --npz"
        )
    return files


def require_all_cases(models: Sequence[Path], found: Sequence[dict[str, Path]]) -> list[str]:
    """The cases of all models together. Raises DatasetError if a model lacks one of them."""
    cases = sorted(set().union(*found))
    for model, files in zip(models, found, strict=True):
        absent = [case for case in cases if case not in files]
        if absent:
            raise DatasetError(
                f"{model} has no probabilities of {first_few(absent)}, which other models have; were all of them "
                "trained with the same splits?"
            )
    return cases


def require_same_labels(folders: Sequence[Path]) -> None:
    """Raise DatasetError if dataset.json of one folder has other labels than that of the first."""
    known: tuple[Path, Any] | None = None
    for folder in folders:
        file = folder / "dataset.json"
        if not file.is_file():
            continue
        document = DatasetJson.from_file(file)
        labels = list(document.labels.items()), document.regions_class_order
        if known is not None and labels != known[1]:
            raise DatasetError(
                f"{file} has other labels than {known[0]}: {dict(labels[0])} and {dict(known[1][0])}; only models of "
                "the same labels can be averaged"
            )
        known = known or (file, labels)
