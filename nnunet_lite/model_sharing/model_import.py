"""Installing a zip of models: everything is checked in a folder beside, then moved to its place."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, CheckpointError, StorageError, nnUNetError
from nnunet_lite.model_sharing.archive_check import MANIFEST, checked_members
from nnunet_lite.model_sharing.installed_instructions import adapt_instructions
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.utilities.files import PathLike, load_json, storage_errors
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.replaced_folders import replace_folder, restore_replaced
from nnunet_lite.utilities.temporary_names import temporary_folder

_CHUNK = 2**20
_DOCUMENTS = ("dataset.json", "plans.json")


def install_model_from_zip_file(zip_file: PathLike, overwrite: bool = False) -> list[Path]:
    """Install the models of a zip, ours or upstream's, into nnUNet_results (spec 03, 8.2).

    Nothing is written before every member's name and size is checked; everything is extracted to a folder of its own,
    where checkpoints, documents and checksums are checked; then it is moved to its place.

    Args:
        zip_file: as nnUNetv2_export_model_to_zip makes it.
        overwrite: replace models that are there.

    Returns:
        The model folders.

    Raises:
        ArgumentError: no such file, no zip, or one that holds what no export of models does.
        CheckpointError: a checkpoint cannot be read safely.
        StorageError: a model of that name is there, or the disk is full.
    """
    source = Path(zip_file)
    if not source.is_file():
        what = f"{source} is a folder, expected a zip" if source.is_dir() else f"There is no file {source}"
        is_address = "://" in os.fspath(zip_file)
        advice = "; addresses are for nnUNetv2_download_pretrained_model_by_url" if is_address else ""
        raise ArgumentError(f"{what}{advice}")
    results = Path(os.fspath(nnUNet_results))
    try:
        with zipfile.ZipFile(source) as archive:
            members = checked_members(archive)
            _require_room(results, members)
            with storage_errors(results), temporary_folder(results / "install") as folder:
                sums = dict(_extract(archive, members, folder))
                _check_manifests(folder, sums)
                models = _check_models(folder)
                adapt_instructions(folder, results)
                return _move(folder, models, results, overwrite)
    except nnUNetError:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArgumentError(f"{source} is no zip that can be read ({error}); download or copy it again") from error


def _require_room(results: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    needed = sum(member.file_size for member in members)
    place = next(parent for parent in (results, *results.parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(f"{results} has room for {free / 2**30:.1f} GiB, the models take {needed / 2**30:.1f} GiB")


def _extract(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> Iterator[tuple[str, str]]:
    """Write the members; yields name and SHA-256 of each. Never more bytes than it claims."""
    for member in members:
        target = folder / member.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), member.file_size
        with archive.open(member) as packed, target.open("xb") as file:
            while chunk := packed.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ArgumentError(f"{archive.filename}: {member.filename} is larger than it claims to be")
                digest.update(chunk)
                file.write(chunk)
        yield member.filename, digest.hexdigest()


def _check_manifests(folder: Path, sums: Mapping[str, str]) -> None:
    """Compare with the checksums that an export of ours brings along."""
    for manifest in folder.glob(f"*/{MANIFEST}"):
        content = _json(manifest)
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict):
            raise ArgumentError(f"{manifest.relative_to(folder)} is damaged: it lists no files")
        for name, expected in files.items():
            if name not in sums:
                raise ArgumentError(f"{name} is missing in the zip, which lists it; download or copy it again")
            if not isinstance(expected, dict) or sums[name] != expected.get("sha256"):
                raise ArgumentError(f"{name} is damaged: its checksum is another; download or copy the zip again")


def _check_models(folder: Path) -> list[Path]:
    """The model folders; every document and checkpoint in them can be read."""
    from nnunet_lite.models.checkpoint import load_checkpoint
    from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing

    models = [model for model in sorted(folder.glob("Dataset*/*__*__*")) if model.parent.name != "ensembles"]
    models = [model for model in models if model.is_dir()]
    if not models:
        raise ArgumentError("The zip holds no model: no folder DatasetXXX_Name/Trainer__Plans__Configuration")
    for model in models:
        missing = [name for name in _DOCUMENTS if not (model / name).is_file()]
        if missing:
            raise ArgumentError(f"{model.relative_to(folder)} has no {' and no '.join(missing)}; it cannot predict")
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".json" and file.parent.name != "validation":
            _json(file)
        elif file.suffix == ".pth":
            try:
                load_checkpoint(file)
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(f"{folder}{os.sep}", "")) from error
        elif file.name == "postprocessing.pkl":
            load_postprocessing(file)
    return models


def _json(file: Path) -> Any:
    try:
        return load_json(file)
    except ValueError as error:
        raise ArgumentError(f"{file.name} in the zip is no valid JSON: {error}") from error


def _move(folder: Path, models: Sequence[Path], results: Path, overwrite: bool) -> list[Path]:
    """Move models, ensembles and documents from the temporary folder to their place; what is there already stays."""
    pieces = [*models, *sorted(folder.glob("Dataset*/ensembles/*"))]
    places = {piece: results / piece.relative_to(folder) for piece in pieces}
    for place in places.values():
        restore_replaced(place)
    same = {piece for piece, place in places.items() if place.exists() and _holds(place, piece)}
    there = [str(place) for piece, place in places.items() if place.exists() and piece not in same]
    if there and not overwrite:
        raise StorageError(f"There is already: {', '.join(there)}; give --overwrite to replace it, or move it away")
    for piece, place in places.items():
        if piece in same:
            logger.info("%s is installed already", place)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(piece, place)
        logger.info("Installed %s", place)
    for file in sorted(folder.glob("Dataset*/*")):
        if file.is_file() and file.name != MANIFEST:
            _move_document(file, results / file.relative_to(folder), overwrite)
    return [places[model] for model in models]


def _holds(place: Path, piece: Path) -> bool:
    """Whether a folder has every file of another, byte by byte: it was installed before, perhaps interrupted after."""
    files = (file for file in piece.rglob("*") if file.is_file())
    names = [file.relative_to(piece) for file in files]
    return all((place / name).is_file() and filecmp.cmp(place / name, piece / name, shallow=False) for name in names)


def _move_document(file: Path, place: Path, overwrite: bool) -> None:
    """What find_best_configuration wrote of other models of the dataset is not replaced unasked."""
    if place.is_file() and not overwrite and not filecmp.cmp(place, file, shallow=False):
        logger.warning("%s is kept, the zip brings another one; --overwrite replaces it", place)
        return
    os.replace(file, place)
