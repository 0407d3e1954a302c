"""dataset.json as the Medical Segmentation Decathlon and nnU-Net v1 have it, and what becomes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.utilities.logging import logger

FILE_ENDING = ".nii.gz"  # the only one both of them know


def read_document(folder: Path) -> DatasetJson:
    """dataset.json of a task's folder.

    Raises:
        DatasetError: the folder, one of imagesTr and labelsTr, or dataset.json does not exist, or is unreadable.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; expected one that holds imagesTr, labelsTr and dataset.json")
    needed = {"imagesTr": Path.is_dir, "labelsTr": Path.is_dir, "dataset.json": Path.is_file}
    missing = [name for name, exists in needed.items() if not exists(folder / name)]
    if missing:
        raise DatasetError(f"{folder} holds no {', no '.join(missing)}; expected imagesTr, labelsTr and dataset.json")
    return DatasetJson.from_file(folder / "dataset.json")


def converted_document(document: DatasetJson, num_training: int, dropped_keys: Collection[str]) -> dict[str, Any]:
    """Today's dataset.json (spec 01, 8.5 and 8.6): keys stay where they are, the number of training cases is true.

    Args:
        document: with `modality` and labels as number -> name; today's `channel_names` and name -> number pass, too.
        num_training: training cases there are.
        dropped_keys: keys to leave out besides `modality`.

    Raises:
        DatasetError: channels or labels are missing or unusable.
    """
    labels = _labels(document)
    names = channel_names(document)
    content = {key: value for key, value in document.raw.items() if key not in {"modality", *dropped_keys}}
    content["labels"] = labels
    content["numTraining"] = num_training
    content["file_ending"] = FILE_ENDING
    content["channel_names"] = {str(number): name for number, name in enumerate(names)}
    view = DatasetJson(content, document.source)
    LabelManager(view.labels, view.regions_class_order)
    return content


def channel_names(document: DatasetJson) -> list[str]:
    """Names of the channels in order: `modality` as an object, a list or the text of a single one.

    Raises:
        DatasetError: there is none, or it is nothing of that kind.
    """
    key = "channel_names" if "channel_names" in document.raw else "modality"
    value = document.raw.get(key)
    try:
        names = DatasetJson({"channel_names": [value] if isinstance(value, str) else value}).channel_names
    except DatasetError:
        names = []
    if not names:
        found = f'"{key}" is {value!r}' if key in document.raw else 'there is no "modality"'
        raise DatasetError(f'{document.source}: {found}; expected {{"0": name, "1": name, ...}}, one for each channel')
    return names


def _labels(document: DatasetJson) -> dict[str, Any]:
    """Name -> number in the order of the file, label 0 called background."""
    value = document.raw.get("labels")
    if not isinstance(value, Mapping) or not value:
        found = f'"labels" is {value!r}' if "labels" in document.raw else 'there is no "labels"'
        raise DatasetError(f'{document.source}: {found}; expected {{"0": "background", "1": name, ...}}')
    if all(str(number).strip().isdecimal() for number in value):
        labels: dict[str, Any] = _inverted(value, document.source)
    else:
        labels = dict(document.labels)
    if "background" not in labels:
        first = next((name for name, number in labels.items() if number == 0), None)
        logger.info("Label 0%s is called background", f", {first!r}," if first else ", which has no name,")
        others = {name: number for name, number in labels.items() if name != first}
        labels = {"background": 0, **others}
    return labels


def _inverted(labels: Mapping[Any, Any], source: str) -> dict[str, int]:
    inverted: dict[str, int] = {}
    for number, name in labels.items():
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{source}: label {number} is called {name!r}; expected a name")
        if name in inverted:
            raise DatasetError(
                f"{source}: labels {inverted[name]} and {int(number)} are both called {name!r}; "
                "give each a name of its own"
            )
        inverted[name] = int(number)
    return inverted


def warn_about_absent_cases(document: DatasetJson, identifiers: Collection[str]) -> None:
    """Log which cases the list `training` names without a file of theirs being there; nothing else depends on it."""
    entries = document.raw.get("training")
    absent = []
    for entry in entries if isinstance(entries, list) else []:
        file = entry.get("label", entry.get("image")) if isinstance(entry, Mapping) else entry
        identifier = re.sub(r"\.nii(\.gz)?$", "", os.path.basename(str(file).replace("\\", "/")))
        if not {identifier, re.sub(r"_\d{4}$", "", identifier)} & set(identifiers):
            absent.append(identifier)
    if absent:
        logger.warning(
            "Training cases that %s lists and that are not there are left out (%d): %s",
            document.source,
            len(absent),
            ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else ""),
        )
