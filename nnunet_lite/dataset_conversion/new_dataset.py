"""A new raw dataset from files of another: complete under its name, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.dataset_conversion.conversion_faults import unreadable_image
from nnunet_lite.exceptions import DatasetError, StorageError
from nnunet_lite.experiment_planning.verify_dataset_integrity import log_warnings, survey_dataset
from nnunet_lite.imageio import nifti
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.paths import nnUNet_raw
from nnunet_lite.plans.faults import Fault, abridged
from nnunet_lite.plans.raw_dataset import dataset_name_to_id, existing_datasets
from nnunet_lite.utilities.files import atomic_path, copy_file, save_json, storage_errors
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, collect, run_tasks

_NAME = re.compile(r"Dataset\d{3,}_[^/\\]+")
_WORKER_BASE = 200 * 2**20  # bytes of interpreter and libraries
_BYTES_PER_VOXEL = 12  # of a 4D image while it is split: float64 is the widest type, and one volume is copied


class Transfer(NamedTuple):
    """One file of the old dataset and what it becomes, relative to the new dataset's folder: a copy.

    Where `splits` is set, an image of four dimensions becomes one file for each of its volumes instead.
    """

    source: str
    targets: tuple[str, ...]
    splits: bool = False
    memory: int = 0  # bytes


class Listing(NamedTuple):
    """The files of a folder with the ending that counts, by name, and links that lead nowhere."""

    files: list[str]
    broken: list[str]


def files_of(folder: Path, skipped_prefixes: tuple[str, ...] = (".",), ending: str = "") -> Listing:
    """Files of a folder (links to files count) whose names do not start with one of the prefixes."""
    with os.scandir(folder) as entries:
        named = [e for e in entries if e.name.endswith(ending) and not e.name.startswith(skipped_prefixes)]
    broken = [entry.name for entry in named if entry.is_symlink() and not os.path.exists(entry.path)]
    return Listing(sorted(entry.name for entry in named if entry.is_file()), sorted(broken))


def require_free(name: str) -> None:
    """Raise DatasetError unless `name` is DatasetXXX_NAME and neither it nor its id is taken in any folder."""
    if not _NAME.fullmatch(name):
        raise DatasetError(f"{name!r} is no dataset name; expected DatasetXXX_NAME, for example Dataset123_Liver")
    target = nnUNet_raw / name
    if os.path.lexists(target):
        raise DatasetError(f"{target} exists already; delete it first, or choose another name or id")
    existing = existing_datasets()
    ids = {dataset_name_to_id(other): other for other in existing}
    number = dataset_name_to_id(name)
    if number in ids:
        free = next(other for other in range(number, number + len(ids) + 1) if other not in ids)
        raise DatasetError(
            f"Dataset id {number} is taken by {ids[number]} in nnUNet_raw, nnUNet_preprocessed or nnUNet_results; "
            f"choose another id, for example {free}"
        )


def volumes(file: str) -> tuple[int, int]:
    """Number of volumes of an image and the bytes that splitting it needs, from its header. Raises DatasetError."""
    shape = SimpleITKIO().read_header(file).shape
    return shape[0], _WORKER_BASE + _BYTES_PER_VOXEL * math.prod(shape) if shape[0] > 1 else 0


def unreadable_headers(files: Iterable[str]) -> Iterator[Fault]:
    """A fault for every image whose header cannot be read."""
    for file in files:
        try:
            SimpleITKIO().read_header(file)
        except DatasetError as error:
            yield unreadable_image(_case_of(file), error)


def _case_of(file: str) -> str:
    return re.sub(r"(_\d{4})?\.nii\.gz$", "", os.path.basename(file))


def make_dataset(
    name: str,
    document: Mapping[str, Any],
    transfers: Collection[Transfer],
    num_processes: int,
    *,
    show_progress: bool = True,
    max_ram: int | None = None,
) -> Path:
    """Transfer files in the pool to a hidden folder beside the new dataset, which then gets its name.

    After an interruption the hidden folder stays, and the next call with this name goes on with it; files whose
    source has changed since are made again.

    Raises:
        DatasetError: files that are damaged, a line each; nothing is left behind.
        StorageError: the disk is full or nnUNet_raw cannot be written to.
    """
    target = nnUNet_raw / name
    tasks = [
        Task("/".join(Path(t.source).parts[-2:]), _transfer, (t, os.fspath(_unfinished(name))), t.memory)
        for t in transfers
    ]
    tasks.sort(key=lambda task: task.memory, reverse=True)
    with _appearing(target, {relative for t in transfers for relative in t.targets}) as folder:
        collect(
            run_tasks(tasks, num_processes, description=f"Making {name}", show_progress=show_progress, max_ram=max_ram)
        )
        save_json(document, folder / "dataset.json", sort_keys=False)
    _check(target)
    return target


def _unfinished(name: str) -> Path:
    return nnUNet_raw / f".unfinished_{name}"


@contextlib.contextmanager
def _appearing(target: Path, expected: Collection[str]) -> Iterator[Path]:
    """Yield the hidden folder, freed of what is not expected in it; it becomes `target` when the block succeeds."""
    folder = _unfinished(target.name)
    with storage_errors(folder):
        for part in sorted({os.path.dirname(relative) for relative in expected}):
            (folder / part).mkdir(parents=True, exist_ok=True)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        if file.relative_to(folder).as_posix() not in expected:
            file.unlink()
    try:
        yield folder
    except DatasetError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        logger.info("What is finished stays in %s; the same command goes on with it", folder)
        raise
    try:
        os.rename(folder, target)
    except OSError as error:
        raise StorageError(f"{folder} cannot be renamed to {target}: {os.strerror(error.errno or 0)}") from error


def _transfer(transfer: Transfer, folder: str) -> None:
    """Copy or split a file; skips what an earlier call has made of the same source."""
    source, targets = transfer.source, [os.path.join(folder, target) for target in transfer.targets]
    if not (transfer.splits and is_4d(source)):
        copy_file(source, targets[0], only_if_newer=True)
        return
    time = os.stat(source).st_mtime_ns
    if not all(os.path.isfile(target) and os.stat(target).st_mtime_ns == time for target in targets):
        split(source, targets)


def is_4d(file: str) -> bool:
    """Whether a file is a NIfTI image of four dimensions, be the fourth of length 1."""
    if not nifti.is_nifti(file):
        return False
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DatasetError(f"{file} cannot be read; it may be truncated, replace it with an intact copy") from error
    return bool(reader.GetDimension() == 4)


def split(source: str, targets: list[str]) -> None:
    """Write each volume of a 4D image to a file of its own, with the spatial part of its geometry and its times.

    Raises:
        DatasetError: the image is damaged or has another number of volumes.
    """
    import SimpleITK

    nifti.require_intact_gzip(source)
    try:
        image = SimpleITK.ReadImage(source)
    except RuntimeError as error:
        raise DatasetError(f"{source} cannot be read; replace it with an intact copy") from error
    *spatial, count = image.GetSize()
    if count != len(targets):
        raise DatasetError(f"{source} has {count} volumes, expected {len(targets)}")
    extract = SimpleITK.ExtractImageFilter()
    extract.SetSize([*spatial, 0])
    extract.SetDirectionCollapseToStrategy(extract.DIRECTIONCOLLAPSETOSUBMATRIX)
    state = os.stat(source)
    for number, target in enumerate(targets):
        extract.SetIndex([0] * len(spatial) + [number])
        with atomic_path(target) as temporary:
            SimpleITK.WriteImage(extract.Execute(image), str(temporary), True)
            os.utime(temporary, ns=(state.st_atime_ns, state.st_mtime_ns))
            if not nifti.is_complete(str(temporary)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check(target: Path) -> None:
    """Warn about what stands in the way of planning and was in the old dataset already."""
    findings = survey_dataset(target).findings
    for line in abridged([finding for finding in findings if finding.is_fault]):
        logger.warning("%s: %s", target.name, line)
    log_warnings(findings)
