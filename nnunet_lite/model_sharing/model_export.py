"""Trained models as one zip file, which upstream installs as well."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError, PathError, nnUNetError
from nnunet_lite.model_sharing.archive_check import MANIFEST
from nnunet_lite.models.model_names import Fold, folds_tuple_to_string, model_folder_name
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name
from nnunet_lite.utilities.files import PathLike, atomic_path, load_json, require_writable, save_json
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.temporary_names import temporary_folder
from nnunet_lite.utilities.wording import counted
from nnunet_lite.version import __version__

_CHUNK = 2**20
_SHOWN = 5  # files named in a message
_POSTPROCESSING = ("summary.json", "postprocessing.pkl", "postprocessing.json", "plans.json", "dataset.json")
_INFERENCE_KEYS = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
_OF_DATASET = ("inference_information.json", "inference_instructions.txt")


class _Entry(NamedTuple):
    """A file to pack; one that is missing is passed over unless it is required."""

    file: Path
    required: bool


def export_pretrained_model(
    dataset_name_or_id: int | str,
    output_file: PathLike,
    configurations: Sequence[str] = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"),
    trainer: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    folds: Sequence[Fold] = (0, 1, 2, 3, 4),
    strict: bool = True,
    save_checkpoints: Sequence[str] = ("checkpoint_final.pth",),
    export_crossval_predictions: bool = False,
    *,
    inference_only: bool = False,
) -> None:
    """Pack models of a dataset, with what cross-validation says of them, into a zip (spec 03, 8.1).

    Args:
        output_file: the zip.
        configurations: one model each.
        folds: of each model.
        strict: every model and file is required; else only checkpoints and documents of the models that are there.
        save_checkpoints: file names in each fold's folder.
        export_crossval_predictions: pack the validation segmentations, too.
        inference_only: leave out what only continuing a training needs, a third to a half of the size remains, and
            the name of the computer that trained.

    Raises:
        PathError: models or files are missing; names all of them.
        StorageError: the disk is full, or the zip cannot be written there.
    """
    require_writable(output_file)
    dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    root = Path(os.fspath(nnUNet_results))
    models = [root / dataset / model_folder_name(trainer, plans_identifier, name) for name in configurations]
    present = [model for model in models if model.is_dir()]
    if strict and len(present) < len(models):
        absent = ", ".join(str(model) for model in models if model not in present)
        raise PathError(f"There is no {absent}; name the configurations that are trained with -c, or give --not_strict")
    if not present:
        raise PathError(f"None of the models exists: {', '.join(map(str, models))}")
    wanted = [
        entry
        for model in present
        for entry in _of_model(model, folds, save_checkpoints, strict, export_crossval_predictions)
    ]
    wanted += _of_ensembles(root / dataset, [model.name for model in present], folds, export_crossval_predictions)
    wanted += [_Entry(root / dataset / name, False) for name in _OF_DATASET]
    missing = [str(entry.file) for entry in wanted if entry.required and not entry.file.is_file()]
    if missing:
        raise PathError(_report(missing, present, folds, save_checkpoints, strict))
    files = [entry.file for entry in wanted if entry.file.is_file()]
    _write(Path(output_file), root, dataset, files, inference_only)
    logger.info("Packed %s into %s", counted(len(present), "model"), output_file)


def _has(model: Path, fold: Fold, checkpoints: Sequence[str]) -> bool:
    return all((model / f"fold_{fold}" / name).is_file() for name in checkpoints)


def _report(
    missing: Sequence[str], models: Sequence[Path], folds: Sequence[Fold], checkpoints: Sequence[str], strict: bool
) -> str:
    """What is missing, and with which flags the rest is packed."""
    there = [fold for fold in folds if all(_has(model, fold, checkpoints) for model in models)]
    absent = {f"fold_{fold}" for fold in folds if fold not in there}
    others = [name for name in missing if absent.isdisjoint(Path(name).parts)]
    advice = []
    if there and absent:
        advice.append(f"-f {' '.join(map(str, there))} packs the folds that are there")
    if strict and others and _optional(others) and (there or not absent):
        advice.append("--not_strict packs what there is")
    is_are = "is" if len(missing) == 1 else "are"
    text = "; ".join([f"{counted(len(missing), 'file')} of these models {is_are} missing", *advice])
    more = [f"and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
    return "\n".join([f"{text}:", *missing[:_SHOWN], *more])


def _optional(missing: Sequence[str]) -> bool:
    return not any(name.endswith((".pth", "plans.json", "dataset.json")) for name in missing)


def _of_model(
    model: Path, folds: Sequence[Fold], checkpoints: Sequence[str], strict: bool, predictions: bool
) -> Iterator[_Entry]:
    for fold in folds:
        folder = model / f"fold_{fold}"
        yield _Entry(folder / "debug.json", False)
        for name in checkpoints:
            yield _Entry(folder / name, True)
        yield _Entry(folder / "progress.png", strict)
        yield _Entry(folder / "network_architecture.pdf", False)
        yield _Entry(folder / "validation" / "summary.json", strict)
        if predictions:
            yield from _plain_files(folder / "validation")
    merged = model / f"crossval_results_folds_{folds_tuple_to_string(folds)}"
    yield from _plain_files(merged) if predictions else [_Entry(merged / name, False) for name in _POSTPROCESSING]
    yield _Entry(model / "plans.json", True)
    yield _Entry(model / "dataset_fingerprint.json", strict)
    yield _Entry(model / "dataset.json", True)


def _of_ensembles(dataset: Path, models: Sequence[str], folds: Sequence[Fold], predictions: bool) -> Iterator[_Entry]:
    """Ensembles of exported models and folds."""
    folder = dataset / "ensembles"
    for ensemble in sorted(folder.iterdir()) if folder.is_dir() else ():
        _, *members, their_folds = ensemble.name.split("___")
        if their_folds != folds_tuple_to_string(folds) or not set(members) <= set(models):
            continue
        yield from (
            _plain_files(ensemble) if predictions else [_Entry(ensemble / name, False) for name in _POSTPROCESSING]
        )


def _plain_files(folder: Path) -> list[_Entry]:
    """Files that lie in a folder itself, without probabilities and properties."""
    if not folder.is_dir():
        return []
    left_out = {".npz", ".pkl", ".journal"}
    files = (file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith("."))
    return [_Entry(file, False) for file in files if file.suffix not in left_out or file.name == "postprocessing.pkl"]


def _write(output: Path, root: Path, dataset: str, files: Iterable[Path], inference_only: bool) -> None:
    manifest: dict[str, Any] = {}
    with (
        atomic_path(output) as temporary,
        temporary_folder(output.with_name("checkpoint")) as folder,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for file in dict.fromkeys(files):
            name = file.relative_to(root).as_posix()
            packed = _reduced(file, folder) if inference_only else file
            manifest[name] = _pack(archive, packed, name)
        about = {"made_by": f"nnunet_lite {__version__}", "files": manifest}
        archive.writestr(f"{dataset}/{MANIFEST}", json.dumps(about, indent=4))


def _pack(archive: zipfile.ZipFile, file: Path, name: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    info = zipfile.ZipInfo.from_file(file, name, strict_timestamps=False)
    stored = file.suffix in (".gz", ".png")  # not .pth, zips themselves: what is left of a truncated file would be one
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return {"sha256": digest.hexdigest(), "size": file.stat().st_size}


def _reduced(file: Path, folder: Path) -> Path:
    """What --inference_only packs of a file."""
    if file.suffix == ".pth":
        return _without_training_state(file, folder)
    return _without_hostname(file, folder) if file.name == "debug.json" else file


def _without_hostname(file: Path, folder: Path) -> Path:
    """debug.json, which does not say then on which computer the training ran."""
    try:
        content = load_json(file)
    except (OSError, ValueError, nnUNetError):
        return file
    if not isinstance(content, dict) or "hostname" not in content:
        return file
    del content["hostname"]
    save_json(content, folder / file.name)
    return folder / file.name


def _without_training_state(file: Path, folder: Path) -> Path:
    """A checkpoint with what prediction needs alone."""
    from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint

    content = load_checkpoint(file)
    absent = [key for key in _INFERENCE_KEYS[:3] if key not in content]
    if absent:
        raise ArgumentError(f"{file} has no {', '.join(absent)}; it cannot predict")
    slim = folder / "checkpoint.pth"
    save_checkpoint({key: content[key] for key in _INFERENCE_KEYS if key in content}, slim)
    return slim
