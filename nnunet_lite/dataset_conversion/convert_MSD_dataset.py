"""Tasks of the Medical Segmentation Decathlon become nnU-Net raw datasets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nnunet_lite.configuration import usable_processes
from nnunet_lite.dataset_conversion.conversion_faults import (
    broken_link,
    missing_image,
    missing_label,
    no_files,
    unreadable_image,
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
    is_4d,
    make_dataset,
    require_free,
    split,
    unreadable_headers,
    volumes,
)
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.plans.faults import Fault, faults_as_error
from nnunet_lite.utilities.files import PathLike, copy_file
from nnunet_lite.utilities.logging import logger

_TASK = re.compile(r"Task(\d+)_(.+)")
_JUNK = (".", "_")  # prefixes of what archivers of macOS leave beside the images
_CHANNEL = re.compile(rf"_\d{{4}}{re.escape(FILE_ENDING)}$")


class _Files(NamedTuple):
    """Names of a task's images and label maps."""

    training: list[str]
    labels: list[str]
    test: list[str] | None  # None: there is no folder of test images


def convert_msd_dataset(
    source_folder: PathLike,
    overwrite_target_id: int | None = None,
    num_processes: int | None = None,
    *,
    show_progress: bool = True,
    max_ram: int | None = None,
) -> Path:
    """Convert an extracted task, TaskNN_NAME, to nnUNet_raw/DatasetNNN_NAME (spec 01, 8.5); returns that folder.

    Everything is checked before anything is written. 4D images become one file for each channel.

    Args:
        source_folder: holds imagesTr, labelsTr, dataset.json and mostly imagesTs.
        overwrite_target_id: id of the new dataset instead of the task's number.
        num_processes: background processes (default: nnUNet_def_n_proc); 0 works in this one.
        max_ram: bytes that images split at the same time may need by estimate.

    Raises:
        ArgumentError: the id is negative.
        DatasetError: the id is taken, or the task is incomplete or not of this kind; lists every fault.
        StorageError: the disk is full or nnUNet_raw cannot be written to.
    """
    processes = usable_processes(num_processes)
    source = Path(os.path.abspath(source_folder))
    document = read_document(source)
    name = _target_name(source, overwrite_target_id)
    require_free(name)
    names = channel_names(document)
    files, faults = _listed(source)
    if not faults:
        faults += _faults_of_pairs(source, files)
    transfers, more = _transfers(source, files, names)
    faults += more
    if faults:
        raise faults_as_error(str(source), faults, len({*files.training, *files.labels}))
    warn_about_absent_cases(document, {_identifier(file) for file in files.labels})
    content = converted_document(document, len(files.labels), ("training", "test"))
    target = make_dataset(name, content, transfers, processes, show_progress=show_progress, max_ram=max_ram)
    logger.info("%s: training cases: %d, channels: %s", target, len(files.labels), ", ".join(names))
    return target


def _target_name(source: Path, overwrite_target_id: int | None) -> str:
    match = _TASK.fullmatch(source.name)
    if match is None:
        raise DatasetError(
            f"{source.name} is no Decathlon task; expected a folder called TaskNN_NAME, for example Task05_Prostate"
        )
    number = int(match[1]) if overwrite_target_id is None else overwrite_target_id
    if number < 0:
        raise ArgumentError(f"Dataset id {number}: expected 0 or more")
    return f"Dataset{number:03d}_{match[2]}"


def _listed(source: Path) -> tuple[_Files, list[Fault]]:
    """The files, and what shows without looking at single cases that they cannot be converted."""
    found, faults = {}, []
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        folder = source / part
        if not folder.is_dir():
            continue
        listing = files_of(folder, _JUNK, FILE_ENDING)
        found[part] = listing.files
        faults += [broken_link(folder / name) for name in listing.broken]
        if not listing.files and not listing.broken and part != "imagesTs":
            faults.append(no_files(folder, FILE_ENDING))
    files = _Files(found["imagesTr"], found["labelsTr"], found.get("imagesTs"))
    named_as_v1 = files.training and all(_CHANNEL.search(image) for image in files.training)
    if named_as_v1 and not faults and not {*files.training} & {*files.labels}:
        advice = f"convert it with nnUNetv2_convert_old_nnUNet_dataset {source} DatasetXXX_NAME"
        faults.append(
            Fault("image-name", f"its images are called CASE_0000{FILE_ENDING}, as those of v1", repair=advice)
        )
    return files, faults


def _faults_of_pairs(source: Path, files: _Files) -> Iterator[Fault]:
    for image in sorted({*files.training} - {*files.labels}):
        yield missing_label(_identifier(image), source / "labelsTr" / image)
    for label in sorted({*files.labels} - {*files.training}):
        yield missing_image(_identifier(label), source / "imagesTr" / label)


def _transfers(source: Path, files: _Files, names: list[str]) -> tuple[list[Transfer], list[Fault]]:
    """What every file becomes, and faults of those that cannot."""
    transfers, faults = [], []
    for part, images in (("imagesTr", files.training), ("imagesTs", files.test or [])):
        for image in images:
            file = str(source / part / image)
            try:
                count, memory = volumes(file)
            except DatasetError as error:
                faults.append(unreadable_image(_identifier(image), error))
                continue
            if count != len(names):
                faults.append(wrong_channels(_identifier(image), f"{file} has", count, "volume", names))
            transfers.append(Transfer(file, _channel_files(part, image, count), True, memory))
    labels = [str(source / "labelsTr" / label) for label in files.labels]
    faults += unreadable_headers(labels)
    transfers += [Transfer(label, (f"labelsTr/{Path(label).name}",)) for label in labels]
    return transfers, faults


def _channel_files(part: str, image: str, count: int) -> tuple[str, ...]:
    return tuple(f"{part}/{_identifier(image)}_{channel:04d}{FILE_ENDING}" for channel in range(count))


def _identifier(file: str) -> str:
    return file[: -len(FILE_ENDING)]


def split_4d_nifti(filename: PathLike, output_folder: PathLike) -> None:
    """Write the volumes of a .nii.gz to NAME_0000.nii.gz ... of a folder; a 3D image is copied to NAME_0000.nii.gz.

    Raises:
        DatasetError: the image is damaged or has more than four dimensions.
    """
    source = os.fspath(filename)
    count, _ = volumes(source)
    targets = [os.path.join(output_folder, name) for name in _channel_files(".", Path(source).name, count)]
    if is_4d(source):
        split(source, targets)
    else:
        copy_file(source, targets[0])
