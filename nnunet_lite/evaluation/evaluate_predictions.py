"""Compare folders of segmentations: all cases in background processes, then summary.json."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.additional_metrics import ADDITIONAL, Request, make_request, summarize_additional
from nnunet_lite.evaluation.metrics import LabelOrRegion, compute_metrics
from nnunet_lite.evaluation.metrics_table import remove_outdated_table, save_metrics_table, table_path
from nnunet_lite.evaluation.summary import names_of_classes, plain_label_or_region, save_summary_json, summarize
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.imageio.reader_writer_registry import (
    READERS_BY_ENDING,
    determine_reader_writer_from_dataset_json,
    determine_reader_writer_from_file_ending,
)
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import PathLike, load_json, subfiles
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
from nnunet_lite.utilities.wording import counted, first_few

_OF_PREDICTIONS = "predict_from_raw_data_args.json"  # lies in every folder that nnU-Net predicted into
_BYTES_PER_VOXEL = 20  # of one pair of segmentations while it is compared


def compute_metrics_on_folder(
    folder_ref: PathLike,
    folder_pred: PathLike,
    output_file: PathLike | None,
    image_reader_writer: BaseReaderWriter,
    file_ending: str,
    regions_or_labels: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
    num_processes: int | None = None,
    chill: bool = True,
    cases: Sequence[str] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    nsd_tolerance: Sequence[float] | None = None,
    csv: bool = False,
    names: Mapping[LabelOrRegion, str] | None = None,
) -> dict[str, Any]:
    """Evaluate every segmentation of one folder against the file of the same name in another.

    Args:
        folder_ref, folder_pred: references and predictions.
        output_file: where to write the results (.json); None writes nothing.
        image_reader_writer: reader of both.
        file_ending: which files of the folders are segmentations.
        regions_or_labels: classes, each a label or a tuple of labels.
        ignore_label: voxels whose reference is this value do not count.
        num_processes: background processes, 0 for none (default: nnUNet_def_n_proc or 8, never more than cores).
        chill: False insists that every reference has a prediction.
        cases: names without ending; other predictions in the folder are passed over (default: all count).
        metrics: further ones, any of surface, volume and lesion, or all.
        nsd_tolerance: of the surface Dice, in mm; one for all classes or one for each (default: 1).
        csv: write a table beside `output_file`; so do `metrics`.
        names: of the classes, for the table.

    Returns:
        metric_per_case (list), mean (class -> metric), foreground_mean (metric); with `metrics` additional_metrics.

    Raises:
        DatasetError: no predictions, predictions or references missing, shapes differ, files unreadable.
    """
    if output_file is not None and not os.fspath(output_file).endswith(".json"):
        raise ArgumentError(f"Output file {os.fspath(output_file)}: expected a name that ends in .json")
    _warn_of_predictions_as_references(Path(folder_ref), Path(folder_pred))
    wanted = None if cases is None else {f"{case}{file_ending}" for case in cases}
    pairs = pair_files(Path(folder_ref), Path(folder_pred), file_ending, chill, wanted)
    classes = [plain_label_or_region(entry) for entry in regions_or_labels]
    if not classes:
        raise ArgumentError("No labels or regions to evaluate; name at least one")
    request = make_request(metrics, nsd_tolerance, classes)
    processes = usable_processes(num_processes)
    tasks = [
        _comparison(name, (reference, prediction, image_reader_writer, classes, ignore_label), request)
        for name, reference, prediction in pairs
    ]
    found = collect(run_tasks(tasks, processes, show_progress=False))
    compared = _without_warnings([found[name] for name, _, _ in pairs])
    additional = [case.pop(ADDITIONAL, None) for case in compared]
    results = summarize(compared, classes)
    _warn_about_absent_classes(results)
    if request is not None:
        extended = [{**case, "metrics": values} for case, values in zip(compared, additional, strict=True)]
        results[ADDITIONAL] = summarize_additional(extended, classes, request)
    if output_file is not None:
        save_summary_json(results, output_file)
        if csv or request is not None:
            save_metrics_table(results, table_path(output_file), file_ending, names)
        else:
            remove_outdated_table(output_file)
    return results


def _comparison(name: str, arguments: tuple[Any, ...], request: Request | None) -> Task:
    """The task that compares one pair of files; `arguments` are those of `compute_metrics`."""
    reference, _, reader, *_ = arguments
    voxels = int(np.prod(reader.read_header(reference).shape))
    if request is None:
        return Task(name, compute_metrics, arguments, memory=_BYTES_PER_VOXEL * voxels)
    # imports half of scipy and scikit-image, which an evaluation without further metrics does without
    from nnunet_lite.evaluation.additional_metrics_of_case import BYTES_PER_VOXEL, compute_all_metrics

    return Task(name, compute_all_metrics, (*arguments, request), memory=(_BYTES_PER_VOXEL + BYTES_PER_VOXEL) * voxels)


def compute_metrics_on_folder2(
    folder_ref: PathLike,
    folder_pred: PathLike,
    dataset_json_file: PathLike,
    plans_file: PathLike,
    output_file: PathLike | None = None,
    num_processes: int | None = None,
    chill: bool = False,
    *,
    metrics: Sequence[str] | None = None,
    nsd_tolerance: Sequence[float] | None = None,
    csv: bool = False,
) -> dict[str, Any]:
    """`compute_metrics_on_folder` with the classes, ignore label and reader of a dataset.

    Args:
        dataset_json_file, plans_file: of the dataset; its regions are evaluated if it has any, else its labels.
        output_file: default is summary.json in the folder of predictions.
    """
    dataset_json = _document(dataset_json_file, "-djfile", "labels", "configurations")
    plans = _document(plans_file, "-pfile", "configurations", "labels")
    label_manager = PlansManager(plans).get_label_manager(dataset_json)
    file_ending = dataset_json["file_ending"]
    references = _segmentations(Path(folder_ref), file_ending)
    reader = determine_reader_writer_from_dataset_json(dataset_json, str(Path(folder_ref) / references[0]))()
    return compute_metrics_on_folder(
        folder_ref,
        folder_pred,
        _summary_path(folder_pred, output_file),
        reader,
        file_ending,
        label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels,
        label_manager.ignore_label,
        num_processes,
        chill,
        metrics=metrics,
        nsd_tolerance=nsd_tolerance,
        csv=csv,
        names=names_of_classes(dataset_json["labels"]),
    )


def compute_metrics_on_folder_simple(
    folder_ref: PathLike,
    folder_pred: PathLike,
    labels: Sequence[int],
    output_file: PathLike | None = None,
    num_processes: int | None = None,
    ignore_label: int | None = None,
    chill: bool = False,
    *,
    metrics: Sequence[str] | None = None,
    nsd_tolerance: Sequence[float] | None = None,
    csv: bool = False,
) -> dict[str, Any]:
    """`compute_metrics_on_folder` without a dataset: the classes are given, the reader follows from the files.

    Args:
        labels: labels to evaluate; 0 may be among them, the foreground mean leaves it out.
        output_file: default is summary.json in the folder of predictions.
    """
    names = _listing(Path(folder_ref))
    endings = sorted({ending for _, known in READERS_BY_ENDING for ending in known}, key=len, reverse=True)
    example = next(((name, ending) for name in names for ending in endings if name.lower().endswith(ending)), None)
    if example is None:
        raise DatasetError(
            f"No segmentations in {folder_ref}: none of its {len(names)} files has an ending that can "
            f"be read ({', '.join(sorted(endings))})"
        )
    name, ending = example
    reader = determine_reader_writer_from_file_ending(ending, str(Path(folder_ref) / name))()
    return compute_metrics_on_folder(
        folder_ref,
        folder_pred,
        _summary_path(folder_pred, output_file),
        reader,
        name[-len(ending) :],
        list(labels),
        ignore_label,
        num_processes,
        chill,
        metrics=metrics,
        nsd_tolerance=nsd_tolerance,
        csv=csv,
    )


def pair_files(
    folder_ref: Path, folder_pred: Path, file_ending: str, chill: bool, wanted: set[str] | None = None
) -> list[tuple[str, str, str]]:
    """(file name, reference, prediction) of everything to compare, by name."""
    references = set(_segmentations(folder_ref, file_ending))
    predictions = [name for name in _segmentations(folder_pred, file_ending) if wanted is None or name in wanted]
    unknown = [name for name in predictions if name not in references]
    if unknown:
        raise DatasetError(
            f"{counted(len(unknown), 'prediction')} in {folder_pred} without a reference in {folder_ref}: "
            f"{first_few(unknown)}; remove them or add the references"
        )
    missing = sorted((references if wanted is None else wanted).difference(predictions))
    if missing and not chill:
        raise DatasetError(
            f"{counted(len(missing), 'reference')} in {folder_ref} without a prediction in {folder_pred}: "
            f"{first_few(missing)}; predict them too or allow it with --chill"
        )
    return [(name, str(folder_ref / name), str(folder_pred / name)) for name in predictions]


def _warn_of_predictions_as_references(folder_ref: Path, folder_pred: Path) -> None:
    if (folder_ref / _OF_PREDICTIONS).is_file():
        swapped = not (folder_pred / _OF_PREDICTIONS).is_file()
        question = "; are the two folders swapped? References come first" if swapped else ""
        logger.warning("The folder of references, %s, holds predictions (%s)%s", folder_ref, _OF_PREDICTIONS, question)


def _segmentations(folder: Path, file_ending: str) -> list[str]:
    names = [name for name in _listing(folder) if name.endswith(file_ending)]
    if not names:
        raise DatasetError(f"No segmentations in {folder}: expected files that end in {file_ending}")
    return names


def _listing(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}; expected one with segmentations")
    return subfiles(folder, join=False)


def _document(file: PathLike, flag: str, key: str, key_of_the_other: str) -> Any:
    """Content of dataset.json or plans.json, which has `key`."""
    if not Path(file).is_file():
        raise ArgumentError(f"There is no file {os.fspath(file)} ({flag})")
    try:
        content = load_json(file)
    except ValueError as error:
        raise ArgumentError(f"{flag} {os.fspath(file)} is no valid JSON: {error}") from error
    if not isinstance(content, dict) or key not in content:
        swapped = isinstance(content, dict) and key_of_the_other in content
        advice = (
            "are -djfile and -pfile swapped?" if swapped else "name dataset.json with -djfile, plans.json with -pfile"
        )
        raise ArgumentError(f"{flag} {os.fspath(file)} has no {key!r}; {advice}")
    return content


def _summary_path(folder_pred: PathLike, output_file: PathLike | None) -> PathLike:
    return Path(folder_pred) / "summary.json" if output_file is None else output_file


def _without_warnings(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases as they stand in summary.json; differences in geometry become one message."""
    moved = [(case["prediction_file"], case["geometry_warning"]) for case in cases if case["geometry_warning"]]
    if moved:
        logger.warning(
            "%d of %d predictions do not lie where their references do; voxels are compared by index. First: %s has %s",
            len(moved),
            len(cases),
            *moved[0],
        )
    return [{key: value for key, value in case.items() if key != "geometry_warning"} for case in cases]


def _warn_about_absent_classes(results: dict[str, Any]) -> None:
    absent = [str(entry) for entry, values in results["mean"].items() if np.isnan(values["Dice"]) and entry != 0]
    if absent:
        logger.warning(
            "Class %s occurs in no reference and no prediction, so the foreground mean of Dice and IoU is "
            "NaN, as in nnU-Net v2",
            ", ".join(absent),
        )
