"""generate_dataset_json: the dataset.json of a raw dataset that a script of one's own has made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.utilities.files import PathLike, save_json, to_plain


def generate_dataset_json(
    output_folder: PathLike,
    channel_names: Mapping[Any, str] | Sequence[str],
    labels: Mapping[str, Any],
    num_training_cases: int,
    file_ending: str,
    citation: list[str] | str | None = None,
    regions_class_order: Sequence[int] | None = None,
    dataset_name: str | None = None,
    reference: str | None = None,
    release: str | None = None,
    description: str | None = None,
    overwrite_image_reader_writer: str | None = None,
    license: str = "Whoever converted this dataset was lazy and didn't look it up!",
    converted_by: str = (
        "Please enter your name, especially when sharing datasets with others in a common infrastructure!"
    ),
    **kwargs: Any,
) -> None:
    """Write `output_folder`/dataset.json (nnU-Net v2 2.8.1 signature and keys, spec 01, 2.3).

    Nothing is written unless the document is sound. What is None is left out.

    Args:
        channel_names: number of the channel (0, 1, ... or "0", "1", ...) -> name, or the names in order; the names
            decide the normalization ("CT" is treated unlike everything else).
        labels: name -> number, or -> several numbers (a region), background 0 among them.
        num_training_cases: number of cases in imagesTr.
        file_ending: of images and label maps, with its dot.
        regions_class_order: the number each region is painted with; needed as soon as there are regions.
        overwrite_image_reader_writer: class that reads the images instead of the one their ending asks for.
        license: stored as `licence`.
        kwargs: further keys, stored as they are.

    Raises:
        DatasetError: channel names, labels, regions, number or file ending that nnU-Net could not work with.
        StorageError: the file cannot be written.
    """
    target = Path(output_folder) / "dataset.json"
    document: dict[str, Any] = {
        "channel_names": _numbered(channel_names),
        "labels": to_plain(labels),
        "numTraining": num_training_cases,
        "file_ending": file_ending,
        "licence": license,
        "converted_by": converted_by,
    }
    optional = {
        "name": dataset_name,
        "reference": reference,
        "release": release,
        "citation": citation,
        "description": description,
        "overwrite_image_reader_writer": overwrite_image_reader_writer,
        "regions_class_order": to_plain(regions_class_order),
    }
    document.update({key: value for key, value in optional.items() if value is not None})
    document.update(kwargs)
    view = DatasetJson(document, os.fspath(target))
    document["channel_names"] = {str(number): name for number, name in enumerate(view.channel_names)}
    document["labels"] = view.labels
    document["numTraining"] = _count(view)
    _ = view.file_ending
    LabelManager(view.labels, view.regions_class_order)
    save_json(document, target, sort_keys=False)


def _numbered(channel_names: Any) -> Any:
    """Channel names as dataset.json has them; what is no such thing stays, for the check to complain about."""
    if isinstance(channel_names, Mapping):
        return {str(number): name for number, name in channel_names.items()}
    return to_plain(channel_names)


def _count(view: DatasetJson) -> int:
    count = view.num_training
    if count < 0 or count != view.raw["numTraining"]:
        raise DatasetError(f"{view.source}: {view.raw['numTraining']!r} training cases; expected a whole number")
    return count
