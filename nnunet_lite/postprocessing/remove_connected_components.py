"""Determine on a cross-validation which small components to remove, and remove them from other predictions.

Upstream's module and function names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.evaluate_predictions import pair_files
from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.evaluation.metrics_table import remove_outdated_table
from nnunet_lite.evaluation.summary import label_or_region_to_key, load_summary_json, save_summary_json
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.plans.prediction_documents import Documents, dataset_json_of, plans_of
from nnunet_lite.postprocessing.connected_components import (
    groups_without_common_labels,
    remove_all_but_largest_component_from_segmentation,
    without_small_components,
)
from nnunet_lite.postprocessing.decision import (
    CaseCounts,
    count_case,
    improves_class,
    improves_foreground,
    metrics_of_cases,
)
from nnunet_lite.postprocessing.postprocessing_file import FUNCTION, save_postprocessing
from nnunet_lite.utilities.files import PathLike, copy_file, save_json, storage_errors, subfiles
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
from nnunet_lite.utilities.replaced_folders import replace_folder
from nnunet_lite.utilities.temporary_names import remove_abandoned_files, temporary_folder
from nnunet_lite.utilities.wording import counted

__all__ = [
    "apply_postprocessing",
    "apply_postprocessing_to_folder",
    "determine_postprocessing",
    "remove_all_but_largest_component_from_segmentation",
]

_BYTES_PER_VOXEL = 30  # of a case while its components are looked for
_VOXELS_PER_SECOND = 2e7  # of one process, roughly
_WORKER_START = 1.0  # seconds; work that takes less altogether is done in this process

Files = tuple[str, str, str]  # name, reference, prediction


class _Folder(NamedTuple):
    """A folder of segmentations with what is needed to read and evaluate them."""

    path: Path
    file_ending: str
    reader: Any
    classes: list[LabelOrRegion]
    foreground_labels: list[int]
    ignore_label: int | None

    @staticmethod
    def open(path: PathLike, plans: Documents, dataset_json: Documents) -> _Folder:
        folder = Path(path)
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {folder}; expected one with segmentations")
        plans_manager = PlansManager(plans_of(folder, plans, "; name it with -plans_json"))
        document = dataset_json_of(folder, dataset_json, "; name it with -dataset_json")
        labels = plans_manager.get_label_manager(document)
        classes: list[LabelOrRegion] = list(labels.foreground_labels)
        if labels.has_regions:
            classes = labels.foreground_regions
        return _Folder(
            folder,
            document["file_ending"],
            plans_manager.image_reader_writer_class(),
            classes,
            labels.foreground_labels,
            labels.ignore_label,
        )


def determine_postprocessing(
    folder_predictions: PathLike,
    folder_ref: PathLike,
    plans_file_or_dict: Documents,
    dataset_json_file_or_dict: Documents,
    num_processes: int | None = None,
    keep_postprocessed_files: bool = True,
    *,
    expect_all: bool = True,
) -> tuple[list[Callable[..., Any]], list[dict[str, Any]]]:
    """Find out where removing all but the largest component raises the Dice (nnU-Net v2 2.8.1 rules, spec 03, 6.6).

    First all foreground together: accepted if its mean Dice rises and that of no class falls. Then each label or
    region by itself: accepted if its own mean Dice rises. Writes postprocessing.pkl, postprocessing.json and, if there
    is none that fits, summary.json into the folder of predictions, and the result to its sub-folder `postprocessed`.

    Args:
        folder_predictions: segmentations of a cross-validation.
        folder_ref: references of the same names.
        plans_file_or_dict, dataset_json_file_or_dict: None takes those that lie beside the predictions.
        num_processes: background processes, 0 for none; fewer are used where starting one takes longer than the work.
        keep_postprocessed_files: False leaves out the sub-folder.
        expect_all: warn of references without a prediction; False for some of the folds.

    Returns:
        The functions to apply in order, and the arguments of each.

    Raises:
        ArgumentError: the two folders are swapped.
        DatasetError: documents, predictions or references are missing, cannot be read, or differ in shape.
    """
    hold_plans = [Path(folder, "plans.json").is_file() for folder in (folder_predictions, folder_ref)]
    if plans_file_or_dict is None and hold_plans == [False, True]:
        raise ArgumentError(
            f"{folder_ref} holds predictions (plans.json), {folder_predictions} does not; are -i and -ref swapped?"
        )
    folder = _Folder.open(folder_predictions, plans_file_or_dict, dataset_json_file_or_dict)
    pairs = pair_files(Path(folder_ref), folder.path, folder.file_ending, chill=True)
    missing = len(subfiles(folder_ref, folder.file_ending)) - len(pairs)
    if missing and expect_all:
        have = "has" if missing == 1 else "have"
        logger.warning("%s in %s %s no prediction in %s", counted(missing, "reference"), folder_ref, have, folder.path)
    files = [prediction for _, _, prediction in pairs]
    processes = _worthwhile(num_processes, files, folder.reader)
    found = _decide(folder, pairs, processes)
    kwargs = [{"labels_or_regions": entry} for entry in found.accepted]
    _save_summary_unless_same(found.before, pairs, folder.path)
    target = folder.path / "postprocessed"
    if keep_postprocessed_files:
        _write_processed(folder, pairs, kwargs, found.after, target, processes)
    elif target.is_dir():
        shutil.rmtree(target)
    save_json(
        {
            "input_folder": _means(found.before),
            "postprocessed": _means(found.after),
            "postprocessing_fns": [FUNCTION] * len(kwargs),
            "postprocessing_kwargs": kwargs,
        },
        folder.path / "postprocessing.json",
    )
    save_postprocessing(kwargs, folder.path / "postprocessing.pkl")
    return [remove_all_but_largest_component_from_segmentation] * len(kwargs), kwargs


class _Decision(NamedTuple):
    """The accepted removals, and the metrics of all cases before and after them."""

    accepted: list[Any]
    before: dict[str, Any]
    after: dict[str, Any]


def _decide(folder: _Folder, pairs: Sequence[Files], processes: int) -> _Decision:
    """Try all foreground together, then each class."""

    def count(accepted: list[Any], candidates: Sequence[Any]) -> list[CaseCounts]:
        arguments = (folder.reader, accepted, list(candidates))
        tasks = [
            Task(name, count_case, (reference, prediction, *arguments), _memory(prediction, folder.reader))
            for name, reference, prediction in pairs
        ]
        found = collect(run_tasks(tasks, processes, description="Looking for components"))
        return [found[name] for name, _, _ in pairs]

    def metrics(cases: Sequence[CaseCounts]) -> dict[str, Any]:
        return metrics_of_cases(cases, folder.classes, folder.ignore_label)

    together = list(folder.foreground_labels)
    cases = count([], [together])
    before = metrics(cases)
    changed = [case.after(0) for case in cases]
    accepted: list[Any] = []
    if improves_foreground(before, metrics(changed)):
        logger.info("Removing all but the largest component of the whole foreground helps")
        cases, accepted = changed, [together]
    if len(folder.classes) > 1:
        for group in groups_without_common_labels(folder.classes):
            cases = count(accepted, group)
            for number, entry in enumerate(group):
                if improves_class(cases, number, entry, folder.ignore_label):
                    logger.info("Removing all but the largest component of %s helps", entry)
                    cases = [case.after(number) for case in cases]
                    accepted = [*accepted, entry]
    return _Decision(accepted, before, metrics(cases))


def _means(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "foreground_mean": metrics["foreground_mean"],
        "mean": {label_or_region_to_key(entry): values for entry, values in metrics["mean"].items()},
    }


def _with_files(metrics: dict[str, Any], pairs: Sequence[Files], folder: Path) -> dict[str, Any]:
    """The metrics as they stand in a summary.json of that folder."""
    cases = [
        {"reference_file": reference, "prediction_file": str(folder / name), **case}
        for (name, reference, _), case in zip(pairs, metrics["metric_per_case"], strict=True)
    ]
    return {**metrics, "metric_per_case": cases}


def _save_summary_unless_same(metrics: dict[str, Any], pairs: Sequence[Files], folder: Path) -> None:
    """Write summary.json if there is none, or one of other predictions (upstream trusts it whatever it says)."""
    file = folder / "summary.json"
    if file.is_file():
        try:
            if _means(load_summary_json(file)) == _means(metrics):
                return
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        logger.warning("%s does not fit the segmentations beside it; writing it anew", file)
    save_summary_json(_with_files(metrics, pairs, folder), file)
    remove_outdated_table(file)


def _write_processed(
    folder: _Folder,
    pairs: Sequence[Files],
    kwargs: Sequence[Mapping[str, Any]],
    metrics: dict[str, Any],
    target: Path,
    processes: int,
) -> None:
    """Let `target` hold the processed segmentations and their summary.json alone; complete or not at all."""
    with storage_errors(target), temporary_folder(target) as temporary:
        new = temporary / target.name
        new.mkdir()
        _process_files([Path(prediction) for _, _, prediction in pairs], new, kwargs, folder.reader, processes)
        save_summary_json(_with_files(metrics, pairs, target), new / "summary.json")
        replace_folder(new, target)


def apply_postprocessing_to_folder(
    input_folder: PathLike,
    output_folder: PathLike,
    pp_fns: Sequence[Callable[..., Any]],
    pp_fn_kwargs: Sequence[Mapping[str, Any]],
    plans_file_or_dict: Documents = None,
    dataset_json_file_or_dict: Documents = None,
    num_processes: int | None = None,
) -> None:
    """Apply a postprocessing to every segmentation of a folder (nnU-Net v2 2.8.1 behaviour, spec 03, 6.8).

    Args:
        input_folder: segmentations, with plans.json and dataset.json unless these are given.
        output_folder: gets files of the same names; those that are there are replaced.
        pp_fns, pp_fn_kwargs: as `determine_postprocessing` returns them.
        num_processes: background processes, 0 for none; fewer are used where starting one takes longer than the work.

    Raises:
        ArgumentError: the same folder twice.
        DatasetError: documents or segmentations are missing or cannot be read.
    """
    folder = _Folder.open(input_folder, plans_file_or_dict, dataset_json_file_or_dict)
    target = Path(output_folder)
    if target.resolve() == folder.path.resolve():
        raise ArgumentError(f"-o {target} is the input folder; name another one, so that the predictions are kept")
    files = [Path(file) for file in subfiles(folder.path, folder.file_ending)]
    if not files:
        raise DatasetError(f"No segmentations in {folder.path}: expected files that end in {folder.file_ending}")
    processes = _worthwhile(num_processes, [str(file) for file in files], folder.reader)
    _process_files(files, target, pp_fn_kwargs, folder.reader, processes, pp_fns)


def apply_postprocessing(
    segmentation: NDArray[Any], pp_fns: Sequence[Callable[..., Any]], pp_fn_kwargs: Sequence[Mapping[str, Any]]
) -> NDArray[Any]:
    """A label map (two or three axes) after all steps in order."""
    known = all(function is remove_all_but_largest_component_from_segmentation for function in pp_fns)
    if known and all(set(arguments) == {"labels_or_regions"} for arguments in pp_fn_kwargs):
        return without_small_components(segmentation, [arguments["labels_or_regions"] for arguments in pp_fn_kwargs])
    for function, arguments in zip(pp_fns, pp_fn_kwargs, strict=True):
        segmentation = function(segmentation, **arguments)
    return segmentation


def _process_files(
    files: Sequence[Path],
    target: Path,
    kwargs: Sequence[Mapping[str, Any]],
    reader: Any,
    processes: int,
    functions: Sequence[Callable[..., Any]] | None = None,
) -> None:
    steps = functions or [remove_all_but_largest_component_from_segmentation] * len(kwargs)
    with storage_errors(target / files[0].name):
        target.mkdir(parents=True, exist_ok=True)
        remove_abandoned_files(target)
    tasks = [
        Task(
            file.name, process_file, (str(file), str(target / file.name), reader, steps, kwargs), _memory(file, reader)
        )
        for file in files
    ]
    collect(run_tasks(tasks, processes, description="Removing components"))


def process_file(
    source: str,
    target: str,
    reader: Any,
    pp_fns: Sequence[Callable[..., Any]],
    pp_fn_kwargs: Sequence[Mapping[str, Any]],
) -> None:
    """Read a segmentation, apply all steps, write it; a copy where there are none. Task of a worker."""
    if not pp_fns:
        copy_file(source, target)
        return
    segmentation, properties = reader.read_seg(source)
    result = apply_postprocessing(segmentation[0], pp_fns, pp_fn_kwargs)
    properties = {**properties, **reader.properties_for_writing(source)}
    reader.write_seg(result, target, properties)


def _worthwhile(requested: int | None, files: Sequence[str], reader: Any) -> int:
    """The requested number of processes, or none for work that takes less time than starting one."""
    processes = usable_processes(requested)
    seconds = 0.0
    for file in files:
        seconds += float(np.prod(reader.read_header(file).shape)) / _VOXELS_PER_SECOND
        if seconds > _WORKER_START:
            return min(processes, len(files))
    return 0


def _memory(file: PathLike, reader: Any) -> int:
    return _BYTES_PER_VOXEL * int(np.prod(reader.read_header(os.fspath(file)).shape))
