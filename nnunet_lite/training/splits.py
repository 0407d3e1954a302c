"""Which cases train and which validate: splits_final.json, and the rules of fold numbers beyond it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from nnunet_lite.configuration import SPLITS_SEED
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.utilities.files import load_json, save_json
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import counted

SPLITS_FILE = "splits_final.json"
NUMBER_OF_FOLDS = 5
_ADVICE = "correct the file, delete it to get a new split, or train with fold 'all'"


class Split(TypedDict):
    """One entry of splits_final.json."""

    train: list[str]
    val: list[str]


def generate_crossval_split(
    train_identifiers: Sequence[str], seed: int = SPLITS_SEED, n_splits: int = NUMBER_OF_FOLDS
) -> list[Split]:
    """Shuffled k-fold split, identical to scikit-learn's KFold(n_splits, shuffle=True, random_state=seed).

    Identifiers are sorted first; within a fold both lists are sorted. The first folds get one case more where the
    number of cases is no multiple of `n_splits`.
    """
    names = sorted(str(name) for name in train_identifiers)
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    splits: list[Split] = []
    for positions in np.array_split(order, n_splits):
        held_out = set(positions.tolist())
        splits.append(
            {
                "train": [name for i, name in enumerate(names) if i not in held_out],
                "val": [name for i, name in enumerate(names) if i in held_out],
            }
        )
    return splits


def random_split(identifiers: Sequence[str], fold: int) -> tuple[list[str], list[str]]:
    """The 80:20 split upstream uses for fold numbers beyond the file; training cases come in drawn order."""
    names = sorted(identifiers)
    drawn = np.random.RandomState(SPLITS_SEED + fold).choice(len(names), int(0.8 * len(names)), replace=False)
    chosen = set(drawn.tolist())
    return [names[i] for i in drawn], [name for i, name in enumerate(names) if i not in chosen]


def load_or_create_splits(splits_file: str | os.PathLike[str], identifiers: Sequence[str]) -> list[Split]:
    """Splits of a dataset as they stand on disk; made from `identifiers` if the file is missing.

    Of runs that start at once the first one's file stays, complete, and all go on with what is on disk.

    Raises:
        DatasetError: the file is no list of splits, or there are too few cases to make one.
    """
    path = Path(splits_file)
    if not path.is_file():
        if len(identifiers) < NUMBER_OF_FOLDS:
            raise DatasetError(
                f"{path.parent} has {len(identifiers)} preprocessed cases, a {NUMBER_OF_FOLDS}-fold cross-validation "
                f"needs at least {NUMBER_OF_FOLDS}; train with fold 'all', or write your own {SPLITS_FILE} there"
            )
        logger.info("Creating new %d-fold cross-validation split: %s", NUMBER_OF_FOLDS, path)
        save_json(generate_crossval_split(identifiers), path, once=True)
    return _checked(_read(path), path)


def _read(path: Path) -> Any:
    try:
        return load_json(path)
    except ValueError as error:
        raise DatasetError(f"{path} is no valid JSON ({error}); correct it, or delete it to get a new split") from error


def _checked(splits: Any, path: Path) -> list[Split]:
    if not isinstance(splits, list) or not splits:
        raise DatasetError(f'{path} must hold a list of {{"train": [...], "val": [...]}}; correct it, or delete it')
    for number, split in enumerate(splits):
        for key in ("train", "val"):
            cases = split.get(key) if isinstance(split, dict) else None
            if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
                raise DatasetError(f"{path}, split {number}: expected a list of case names under {key!r}; correct it")
    return splits


def parse_fold(fold: int | str) -> int | str:
    """A fold as given by a user: a number from 0, or "all".

    Raises:
        ArgumentError: anything else.
    """
    text = str(fold).strip()
    if text == "all":
        return text
    if not text.isdecimal():
        raise ArgumentError(f"fold {fold!r}: expected a number from 0, or all")
    return int(text)


def do_split(
    fold: int | str, identifiers: Sequence[str], splits_file: str | os.PathLike[str], quiet: bool = False
) -> tuple[list[str], list[str]]:
    """Training and validation cases of a fold (nnU-Net v2 2.8.1 behaviour, spec 02, section 2).

    Args:
        fold: entry of the splits file; beyond it a random 80:20 split that is not saved; "all" uses every case twice.
        identifiers: cases of the preprocessed configuration folder.
        splits_file: dataset-level splits_final.json, made if missing.
        quiet: say nothing about the split.

    Raises:
        ArgumentError: a fold that is neither a number from 0 nor "all".
        DatasetError: the file cannot be used, names cases that are not there, leaves nothing to train on, or has cases
            that both train and validate (upstream only warns).
    """
    fold = parse_fold(fold)
    if not identifiers:
        raise DatasetError(f"No preprocessed cases found beside {splits_file}; run nnUNetv2_preprocess first")
    if isinstance(fold, str):
        return sorted(identifiers), sorted(identifiers)
    splits = load_or_create_splits(splits_file, identifiers)
    if fold >= len(splits):
        if not quiet:
            folds = f"folds 0 to {len(splits) - 1}" if len(splits) > 1 else "fold 0 only"
            logger.warning("%s has %s: fold %d is a random 80:20 split", splits_file, folds, fold)
        train, val = random_split(identifiers, fold)
        where = f"A random 80:20 split of {len(identifiers)} cases"
    else:
        train, val = list(splits[fold]["train"]), list(splits[fold]["val"])
        where = f"{splits_file}, split {fold}"
    _check_cases(train, val, set(identifiers), where)
    if not quiet:
        logger.info("Fold %d has %d training and %d validation cases", fold, len(train), len(val))
    return train, val


def require_validation_cases(val: Sequence[str], fold: int | str, splits_file: str | os.PathLike[str]) -> None:
    """Raise DatasetError if a training would have nothing to draw its validation batches from."""
    if not val:
        raise DatasetError(f"Fold {fold} of {splits_file} has no validation cases, which every epoch needs; {_ADVICE}")


def _check_cases(train: list[str], val: list[str], known: set[str], where: str) -> None:
    missing = sorted(set(train + val) - known)
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        have = "has" if len(missing) == 1 else "have"
        raise DatasetError(
            f"{where}: {counted(len(missing), 'case')} {have} no preprocessed data ({names}); "
            "run nnUNetv2_preprocess (finished cases are kept), or correct the file (deleting it makes a new split)"
        )
    if not train:
        raise DatasetError(f"{where}: no training cases; {_ADVICE}")
    for kind, cases in (("training", train), ("validation", val)):
        if len(set(cases)) < len(cases):
            logger.warning("%s: some %s cases are listed more than once", where, kind)
    overlap = sorted(set(train) & set(val))
    if overlap:
        names = ", ".join(overlap[:5]) + (", ..." if len(overlap) > 5 else "")
        s = "s" if len(overlap) == 1 else ""
        raise DatasetError(
            f"{where}: {counted(len(overlap), 'case')} both train{s} and validate{s} ({names}), so that the validation "
            "would mislead; take them out of one of the two lists, or train on all cases with fold 'all'"
        )
