"""Raw datasets of nnU-Net v1, TaskXXX_NAME, become those of v2."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_lite.configuration import usable_processes
from nnunet_lite.dataset_conversion.conversion_faults import (
    broken_link,
    missing_image,
    missing_label,
    no_files,
    wrong_channels,
)
from nnunet_lite.dataset_conversion.earlier_dataset_json import (
    FILE_ENDING,
    channel_names,
    converted_document,
    read_document,
    warn_about_absent_cases,
)
from nnunet_lite.dataset_conversion.new_dataset import (
    Transfer,
    files_of,
    make_dataset,
    require_free,
    unreadable_headers,
)
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.faults import Fault, faults_as_error
from nnunet_lite.plans.raw_dataset import list_image_cases
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger

_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")
_DROPPED_KEYS = ("tensorImageSize", "numTest", "training", "test")


def convert(source_folder: PathLike, target_dataset_name: str, *, show_progress: bool = True) -> Path:
    """Copy a v1 task to nnUNet_raw/DatasetXXX_NAME and rewrite its dataset.json (spec 01, 8.6); returns the folder.

    Everything is checked before anything is written. Links are followed, hidden files are left out.

    Args:
        source_folder: the task's folder (a path): imagesTr, labelsTr, dataset.json; imagesTs, labelsTs, imagesVal and
            labelsVal where there are.
        target_dataset_name: DatasetXXX_NAME.

    Raises:
        DatasetError: the name or its id is taken or no dataset name, or files are missing or misnamed; lists all.
        StorageError: the disk is full or nnUNet_raw cannot be written to.
    """
    source = Path(os.path.abspath(source_folder))
    document = read_document(source)
    require_free(target_dataset_name)
    names = channel_names(document)
    labels = files_of(source / "labelsTr", ending=FILE_ENDING).files
    _require_sound_files(source, names, labels)
    identifiers = {label[: -len(FILE_ENDING)] for label in labels}
    warn_about_absent_cases(document, identifiers)
    content = converted_document(document, len(labels), _DROPPED_KEYS)
    transfers = [
        Transfer(str(source / part / file), (f"{part}/{file}",))
        for part in _PARTS
        if (source / part).is_dir()
        for file in files_of(source / part).files
    ]
    target = make_dataset(target_dataset_name, content, transfers, usable_processes(None), show_progress=show_progress)
    logger.info("%s: training cases: %d, channels: %s", target, len(labels), ", ".join(names))
    return target


def _require_sound_files(source: Path, names: list[str], labels: list[str]) -> None:
    """Raise DatasetError unless all cases are complete and the headers of their files can be read."""
    faults: list[Fault] = []
    files: list[str] = []
    cases: dict[str, list[str]] = {}
    for part in _PARTS:
        folder = source / part
        if not folder.is_dir():
            continue
        listing = files_of(folder)
        faults += [broken_link(folder / name) for name in listing.broken]
        files += [str(folder / name) for name in listing.files if name.endswith(FILE_ENDING)]
    if {*labels} & {*files_of(source / "imagesTr").files}:
        raise DatasetError(
            f"{source}: its images are called CASE{FILE_ENDING} without a channel number, as those of the Decathlon; "
            f"convert it with nnUNetv2_convert_MSD_dataset -i {source}"
        )
    if not faults:
        cases = list_image_cases(source / "imagesTr", FILE_ENDING, quiet=True)
        faults += _faults_of_cases(source, cases, names, {label[: -len(FILE_ENDING)] for label in labels})
        faults += unreadable_headers(files)
    if faults:
        raise faults_as_error(str(source), faults, len(cases))


def _faults_of_cases(source: Path, cases: dict[str, list[str]], names: list[str], labelled: set[str]) -> list[Fault]:
    faults = []
    for identifier in sorted({*cases, *labelled}):
        if identifier not in labelled:
            file = source / "labelsTr" / f"{identifier}{FILE_ENDING}"
            faults.append(missing_label(identifier, file))
        count = len(cases.get(identifier, []))
        if count == 0:
            file = source / "imagesTr" / f"{identifier}_0000{FILE_ENDING}"
            faults.append(missing_image(identifier, file))
        elif count != len(names):
            faults.append(wrong_channels(identifier, "it has", count, "image file", names))
    if not faults and not cases:
        faults.append(no_files(source / "imagesTr", FILE_ENDING))
    return faults
