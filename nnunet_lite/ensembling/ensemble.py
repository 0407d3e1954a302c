"""Ensembles: the mean of several models' probabilities, then its labels; a channel at a time.

Upstream's module and function names (nnU-Net v2 2.8.1 behaviour, spec 03, 6.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import num_compute_threads, usable_processes
from nnunet_lite.ensembling.label_reduction import label_reduction
from nnunet_lite.ensembling.mean_probabilities import KEY, mean_channels, properties_of, shape_of
from nnunet_lite.ensembling.members import (
    ENDING,
    common_cases,
    require_all_cases,
    require_same_labels,
    validation_cases,
)
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.plans.prediction_documents import Documents, dataset_json_of, plans_of
from nnunet_lite.utilities.files import PathLike, copy_file, save_json, save_pickle
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.npz_stream import npz_stream
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
from nnunet_lite.utilities.temporary_names import remove_abandoned_files
from nnunet_lite.utilities.wording import counted

_BYTES_PER_VOXEL = 20  # of a case, whatever the number of its classes
_VALUES_PER_SECOND = 4e7  # that one process inflates and adds, roughly
_WORKER_START = 1.0  # seconds; work that takes less altogether is done in this process


def average_probabilities(list_of_files: Sequence[PathLike]) -> NDArray[np.float32]:
    """Mean of the `probabilities` of several `.npz`: float32 (heads, d0, d1, d2).

    Raises:
        ArgumentError: no files.
        DatasetError: a file cannot be read, or shapes differ.
    """
    _require_some(list_of_files, "files")
    return np.stack(list(mean_channels(list_of_files)))


def merge_files(
    list_of_files: Sequence[PathLike],
    output_filename_truncated: PathLike,
    output_file_ending: str,
    image_reader_writer: Any,
    label_manager: LabelManager,
    save_probabilities: bool = False,
) -> None:
    """Write the segmentation of the averaged probabilities of one case.

    Its geometry is that of the `.pkl` beside the first file. What is in memory does not grow with the number of
    classes. Each file appears complete or not at all, the segmentation last.

    Args:
        list_of_files: `.npz` of each member.
        output_filename_truncated: path without file ending.
        image_reader_writer: writes the segmentation.
        label_manager: says what the channels mean.
        save_probabilities: also write `.npz` and `.pkl`.

    Raises:
        ArgumentError: no files.
        DatasetError: a file is missing or cannot be read, or shapes differ.
    """
    _require_some(list_of_files, "files")
    properties = properties_of(list_of_files)
    shape = shape_of(list_of_files[0])
    if shape[0] != label_manager.num_segmentation_heads:
        raise DatasetError(
            f"{list_of_files[0]} has {counted(shape[0], 'channel')}, the labels {label_manager.label_dict} need "
            f"{label_manager.num_segmentation_heads}; do dataset.json and the predictions belong together?"
        )
    reduction = label_reduction(label_manager, shape)
    with ExitStack() as stack:
        stream = None
        if save_probabilities:
            target = f"{output_filename_truncated}{ENDING}"
            stream = stack.enter_context(npz_stream(target, KEY, shape, num_compute_threads()))
        for channel in mean_channels(list_of_files):
            reduction.add(channel)
            if stream is not None:
                stream.write(channel)
    if save_probabilities:
        save_pickle(properties, f"{output_filename_truncated}.pkl")
    target = f"{output_filename_truncated}{output_file_ending}"
    try:
        image_reader_writer.write_seg(reduction.labels(), target, properties)
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{Path(list_of_files[0]).with_suffix('.pkl')} does not hold the geometry that {target} needs "
            f"({type(error).__name__}: {error}); predict that case again with --save_probabilities"
        ) from error


def ensemble_folders(
    list_of_input_folders: Sequence[PathLike],
    output_folder: PathLike,
    save_merged_probabilities: bool = False,
    num_processes: int | None = None,
    dataset_json_file_or_dict: Documents = None,
    plans_json_file_or_dict: Documents = None,
) -> None:
    """Average predictions that were made with `--save_probabilities`.

    Args:
        list_of_input_folders: each with the `.npz` and `.pkl` of the same cases.
        output_folder: gets the segmentations, dataset.json and plans.json.
        num_processes: background processes, 0 for none; fewer are used where starting one takes longer than the work.
        dataset_json_file_or_dict, plans_json_file_or_dict: None takes those of the first folder.

    Raises:
        ArgumentError: no folder, or the output folder among them.
        DatasetError: probabilities are missing (says of which cases), folders with different cases or labels, or
            cases that failed.
    """
    folders = [Path(folder) for folder in list_of_input_folders]
    target = Path(output_folder)
    if not folders:
        raise ArgumentError("No folders to ensemble; name at least one with -i")
    resolved = [folder.resolve() for folder in folders]
    if target.resolve() in resolved:
        raise ArgumentError(f"-o {target} is one of the input folders; name another one")
    for number, folder in enumerate(folders):
        if resolved[number] in resolved[:number]:
            logger.warning("-i names %s twice; its probabilities count twice", folder)
    cases = common_cases(folders)
    advice = f", which says what the probabilities in {folders[0]} mean"
    dataset_json = dataset_json_of(folders[0], dataset_json_file_or_dict, advice)
    plans = plans_of(folders[0], plans_json_file_or_dict, advice)
    if dataset_json_file_or_dict is None:
        require_same_labels(folders)
    members = {case: [folder / f"{case}{ENDING}" for folder in folders] for case in cases}
    merge_cases(members, target, dataset_json, plans, save_merged_probabilities, num_processes)
    save_json(dataset_json, target / "dataset.json", sort_keys=False)
    save_json(plans, target / "plans.json", sort_keys=False)


def ensemble_crossvalidations(
    list_of_trained_model_folders: Sequence[PathLike],
    output_folder: PathLike,
    folds: Sequence[int | str] | int = (0, 1, 2, 3, 4),
    num_processes: int | None = None,
    overwrite: bool = True,
) -> None:
    """Average the validation predictions of several models, of all folds, case by case.

    The folds of a case may differ between models.

    Args:
        list_of_trained_model_folders: Trainer__Plans__Configuration each, validated with `--npz`.
        output_folder: gets the segmentations, plans.json and dataset.json of the first model.
        folds: numbers, or `all`.
        num_processes: as of `ensemble_folders`.
        overwrite: False leaves segmentations alone that are there.

    Raises:
        ArgumentError: no models.
        DatasetError: probabilities are missing (says of which folds or cases), a case is in two folds of a model,
            models of different labels, or cases that failed.
    """
    _require_some(list_of_trained_model_folders, "models")
    models = [Path(folder) for folder in list_of_trained_model_folders]
    target = Path(output_folder)
    found = [validation_cases(model, [folds] if isinstance(folds, int) else folds) for model in models]
    cases = require_all_cases(models, found)
    require_same_labels(models)
    dataset_json, plans = dataset_json_of(models[0]), plans_of(models[0])
    if not overwrite:
        cases = [case for case in cases if not (target / f"{case}{dataset_json['file_ending']}").is_file()]
    merge_cases(
        {case: [files[case] for files in found] for case in cases}, target, dataset_json, plans, False, num_processes
    )
    for name in ("plans.json", "dataset.json"):
        copy_file(models[0] / name, target / name)


def _require_some(given: Sequence[PathLike], what: str) -> None:
    if len(given) == 0:
        raise ArgumentError(f"No {what} to ensemble; name at least one")


def merge_cases(
    members: Mapping[str, Sequence[Path]],
    target: Path,
    dataset_json: Mapping[str, Any],
    plans: Mapping[str, Any],
    save_probabilities: bool,
    num_processes: int | None,
) -> None:
    """`merge_files` for many cases, in background processes where that pays.

    Args:
        members: case -> `.npz` of each member.

    Raises:
        nnUNetError: cases that failed, after all others were done; names each with its reason.
    """
    plans_manager = PlansManager(dict(plans))
    label_manager = plans_manager.get_label_manager(dataset_json)
    writer = plans_manager.image_reader_writer_class()
    rest = (dataset_json["file_ending"], writer, label_manager, save_probabilities)
    shapes = {case: _shape_or_nothing(files[0]) for case, files in members.items()}
    values = sum(float(np.prod(shapes[case])) * len(files) for case, files in members.items())
    processes = usable_processes(num_processes) if values / _VALUES_PER_SECOND > _WORKER_START else 0
    tasks = [
        Task(
            case,
            merge_files,
            ([str(file) for file in files], str(target / case), *rest),
            _BYTES_PER_VOXEL * int(np.prod(shapes[case][1:])),
        )
        for case, files in members.items()
    ]
    remove_abandoned_files(target)
    collect(run_tasks(tasks, processes, description="Ensembling"))


def _shape_or_nothing(file: Path) -> tuple[int, ...]:
    """The shape of probabilities; of nothing where they cannot be read, which the case itself will tell."""
    try:
        return shape_of(file)
    except DatasetError:
        return (0, 0)
