"""What planning writes to the preprocessed folder: plans, and copies of dataset.json and splits_final.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.plans_manager import load_plans
from nnunet_lite.utilities.files import PathLike, copy_file, load_json, save_json
from nnunet_lite.utilities.logging import logger

AUTOMATIC_CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_PARTS = ("train", "val")
AUTOMATIC_CASCADE = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def save_plans_file(plans: Mapping[str, Any], file: Path) -> None:
    """Write plans in their own order of keys; configurations that somebody added to an existing file are kept.

    Kept are names no planner makes, and automatic names that inherit from another configuration. Upstream keeps
    automatic ones of an earlier planning as well, which no longer fit the dataset.
    """
    configurations = dict(plans["configurations"])
    if file.is_file():
        added = _added_by_hand(load_plans(file)["configurations"], configurations)
        for name, configuration in added.items():
            parent = configuration.get("inherits_from")
            if parent is not None and str(parent) not in {**configurations, **added}:
                logger.warning("%s: configuration %s inherits from %s, which is not planned", file, name, parent)
        configurations.update(added)
    save_json({**plans, "configurations": configurations}, file, sort_keys=False)


def _added_by_hand(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: configuration
        for name, configuration in old.items()
        if isinstance(configuration, dict)
        and name not in new
        and (
            name not in AUTOMATIC_CONFIGURATIONS
            or ("inherits_from" in configuration and configuration != AUTOMATIC_CASCADE)
        )
    }


def dataset_json_file(raw: PathLike, preprocessed: PathLike) -> Path:
    """dataset.json of the raw dataset, or, where that is not on this machine, the copy made by an earlier planning."""
    original, copy = Path(raw) / "dataset.json", Path(preprocessed) / "dataset.json"
    return copy if copy.is_file() and not original.is_file() else original


def copy_dataset_documents(raw: Path, preprocessed: Path) -> None:
    """Copy dataset.json (its order of keys matters) and, if there are any and none yet, the splits.

    Raises:
        DatasetError: both folders have splits that differ in a fold of the raw ones; nothing is copied then.
    """
    if dataset_json_file(raw, preprocessed).parent == preprocessed:
        logger.info("There is no %s; the copy of an earlier planning is used", raw / "dataset.json")
        return
    splits, target = raw / "splits_final.json", preprocessed / "splits_final.json"
    if splits.is_file() and target.is_file():
        _check_same_splits(splits, target)
    copy_file(raw / "dataset.json", preprocessed / "dataset.json")
    if splits.is_file() and not target.is_file():
        copy_file(splits, target)


def _splits(file: Path) -> list[dict[str, list[str]]]:
    try:
        splits = load_json(file)
        if all(isinstance(case, str) for split in splits for part in _PARTS for case in split[part]):
            return cast("list[dict[str, list[str]]]", splits)
    except (ValueError, TypeError, KeyError):
        pass
    raise DatasetError(f'{file}: expected a list of {{"train": [case, ...], "val": [case, ...]}}; correct or delete it')


def _check_same_splits(raw_file: Path, target: Path) -> None:
    mine, theirs = _splits(raw_file), _splits(target)
    for fold, split in enumerate(mine):
        other = theirs[fold] if fold < len(theirs) else {}
        if any(set(split[part]) != set(other.get(part, ())) for part in _PARTS):
            raise DatasetError(f"{raw_file} and {target} differ in fold {fold}; delete the one that is not wanted")
