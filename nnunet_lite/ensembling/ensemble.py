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

from nnunet_lite.configuration import cpu_count, usable_processes
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import PathLike, copy_file, load_json, load_pickle, save_json, save_pickle, subfiles
from nnunet_lite.utilities.npz_channels import npz_channels
from nnunet_lite.utilities.npz_stream import npz_stream
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
from nnunet_lite.utilities.wording import counted

_KEY = "probabilities"
_ENDING = ".npz"
_BYTES_PER_VOXEL = 20  # of a case, whatever the number of its classes
_VALUES_PER_SECOND = 4e7  # that one process inflates and adds, roughly
_WORKER_START = 1.0  # seconds; work that takes less altogether is done in this process

Documents = PathLike | Mapping[str, Any] | None


def average_probabilities(list_of_files: Sequence[PathLike]) -> NDArray[np.float32]:
    """Mean of the `probabilities` of several `.npz`: float32 (heads, d0, d1, d2).

    Raises:
        DatasetError: a file cannot be read, or shapes differ.
    """
    return np.stack(list(_mean_channels(list_of_files)))


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
        DatasetError: a file is missing or cannot be read, or shapes differ.
    """
    properties = _properties(Path(list_of_files[0]))
    shape = shape_of(list_of_files[0])
    if shape[0] != label_manager.num_segmentation_heads:
        raise DatasetError(
            f"{list_of_files[0]} has {counted(shape[0], 'channel')}, the labels {label_manager.label_dict} need "
            f"{label_manager.num_segmentation_heads}; do dataset.json and the predictions belong together?"
        )
    reduction = _reduction(label_manager, shape)
    with ExitStack() as stack:
        stream = None
        if save_probabilities:
            target = f"{output_filename_truncated}{_ENDING}"
            stream = stack.enter_context(npz_stream(target, _KEY, shape, cpu_count()))
        for channel in _mean_channels(list_of_files):
            reduction.add(channel)
            if stream is not None:
                stream.write(channel)
    if save_probabilities:
        save_pickle(properties, f"{output_filename_truncated}.pkl")
    image_reader_writer.write_seg(reduction.labels(), f"{output_filename_truncated}{output_file_ending}", properties)


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
    if target.resolve() in [folder.resolve() for folder in folders]:
        raise ArgumentError(f"-o {target} is one of the input folders; name another one")
    cases = _common_cases(folders)
    dataset_json = _document(folders[0], "dataset.json", dataset_json_file_or_dict)
    plans = _document(folders[0], "plans.json", plans_json_file_or_dict)
    if dataset_json_file_or_dict is None:
        require_same_labels(folders)
    members = {case: [folder / f"{case}{_ENDING}" for folder in folders] for case in cases}
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
        DatasetError: probabilities are missing (says of which folds or cases), a case is in two folds of a model,
            models of different labels, or cases that failed.
    """
    models = [Path(folder) for folder in list_of_trained_model_folders]
    target = Path(output_folder)
    found = [_validation_cases(model, [folds] if isinstance(folds, int) else folds) for model in models]
    cases = sorted(set().union(*found))
    for model, files in zip(models, found, strict=True):
        absent = [case for case in cases if case not in files]
        if absent:
            raise DatasetError(
                f"{model} has no probabilities of {_first(absent)}, which other models have; were all of them trained "
                "with the same splits?"
            )
    require_same_labels(models)
    dataset_json, plans = (load_json(models[0] / name) for name in ("dataset.json", "plans.json"))
    if not overwrite:
        cases = [case for case in cases if not (target / f"{case}{dataset_json['file_ending']}").is_file()]
    merge_cases(
        {case: [files[case] for files in found] for case in cases}, target, dataset_json, plans, False, num_processes
    )
    for name in ("plans.json", "dataset.json"):
        copy_file(models[0] / name, target / name)


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
    shapes = {case: shape_of(files[0]) for case, files in members.items()}
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
    collect(run_tasks(tasks, processes, description="Ensembling"))


def require_same_labels(folders: Sequence[Path]) -> None:
    """Raise DatasetError if dataset.json of one folder has other labels than that of the first."""
    known: Any = None
    for folder in folders:
        file = folder / "dataset.json"
        if not file.is_file():
            continue
        content = load_json(file)
        labels = list(content["labels"].items()), content.get("regions_class_order")
        if known is not None and labels != known[1]:
            raise DatasetError(
                f"{file} has other labels than {known[0]}: {dict(labels[0])} and {dict(known[1][0])}; only models of "
                "the same labels can be averaged"
            )
        known = known or (file, labels)


def shape_of(file: PathLike) -> tuple[int, ...]:
    """(heads, d0, d1, d2) of a file of probabilities. Raises DatasetError if it cannot be read."""
    try:
        with npz_channels(file, _KEY) as channels:
            return tuple(int(edge) for edge in channels.shape)
    except (FileNotFoundError, ValueError) as error:
        raise _unreadable(file, error) from error


def _mean_channels(files: Sequence[PathLike]) -> Any:
    """The mean over files, channel by channel, in float32; summed in the order of the files, as upstream does."""
    current: PathLike = files[0]
    try:
        with ExitStack() as stack:
            members = []
            for current in files:
                members.append(stack.enter_context(npz_channels(current, _KEY)))
                if members[-1].shape != members[0].shape:
                    raise DatasetError(
                        f"{current} has shape {members[-1].shape}, {files[0]} has {members[0].shape}: they are not "
                        "predictions of the same image and labels"
                    )
            for _ in range(members[0].shape[0]):
                total: NDArray[np.float32] | None = None
                for file, member in zip(files, members, strict=True):
                    current = file
                    channel = member.read()
                    total = channel.astype(np.float32, copy=False) if total is None else np.add(total, channel, total)
                assert total is not None
                total /= len(files)
                if not np.isfinite(total.sum()):
                    raise DatasetError(f"A probability of {' or '.join(map(str, files))} is no number; predict it anew")
                yield total
    except (FileNotFoundError, ValueError) as error:
        raise _unreadable(current, error) from error


def _unreadable(file: PathLike, error: Exception) -> DatasetError:
    reason = f"There is no file {file}" if isinstance(error, FileNotFoundError) else str(error)
    return DatasetError(f"{reason}; predict that case again with --save_probabilities")


class _LargestChannel:
    """Labels of the largest channel, the lowest on ties."""

    def __init__(self, label_manager: LabelManager, shape: tuple[int, ...]) -> None:
        self._values = label_manager.labels_of_channels
        self._dtype = label_manager.output_dtype
        self._index = np.zeros(shape[1:], np.uint16)
        self._best: NDArray[np.float32] | None = None
        self._number = 0

    def add(self, channel: NDArray[np.float32]) -> None:
        """Look at the next channel."""
        if self._best is None:
            self._best = channel.copy()
        else:
            larger = channel > self._best
            self._best[larger] = channel[larger]
            self._index[larger] = self._number
        self._number += 1

    def labels(self) -> NDArray[Any]:
        """The label map."""
        result = self._index if self._values is None else self._values[self._index]
        return result.astype(self._dtype)


class _PaintedRegions:
    """Each region's label where its probability exceeds one half; later ones overwrite earlier ones."""

    def __init__(self, label_manager: LabelManager, shape: tuple[int, ...]) -> None:
        self._order = iter(label_manager.regions_class_order or ())
        self._labels = np.zeros(shape[1:], label_manager.output_dtype)

    def add(self, channel: NDArray[np.float32]) -> None:
        """Paint the next region."""
        self._labels[channel > 0.5] = next(self._order)

    def labels(self) -> NDArray[Any]:
        """The label map."""
        return self._labels


class _OwnConversion:
    """All channels at once, for a label manager of a user's own."""

    def __init__(self, label_manager: LabelManager) -> None:
        self._label_manager = label_manager
        self._channels: list[NDArray[np.float32]] = []

    def add(self, channel: NDArray[np.float32]) -> None:
        """Keep the next channel."""
        self._channels.append(channel.copy())

    def labels(self) -> NDArray[Any]:
        """The label map."""
        return np.asarray(self._label_manager.convert_probabilities_to_segmentation(np.stack(self._channels)))


def _reduction(
    label_manager: LabelManager, shape: tuple[int, ...]
) -> _LargestChannel | _PaintedRegions | _OwnConversion:
    own = type(label_manager).convert_probabilities_to_segmentation
    if own is not LabelManager.convert_probabilities_to_segmentation:
        return _OwnConversion(label_manager)
    return (_PaintedRegions if label_manager.has_regions else _LargestChannel)(label_manager, shape)


def _properties(file: Path) -> dict[str, Any]:
    pickle = file.with_suffix(".pkl")
    if not pickle.is_file():
        raise DatasetError(
            f"There is no {pickle}, which holds the geometry of that case; predict it again with --save_probabilities"
        )
    properties: dict[str, Any] = load_pickle(pickle)
    return properties


def _common_cases(folders: Sequence[Path]) -> list[str]:
    """Cases of which every folder has probabilities."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {folder}; expected one with predicted probabilities")
        found.append({name[: -len(_ENDING)] for name in subfiles(folder, _ENDING, join=False)})
        if not found[-1]:
            raise DatasetError(f"{folder} holds no probabilities (*.npz); predict with --save_probabilities")
    cases = set().union(*found)
    missing = [
        f"{folder} has none of {_first(sorted(cases - names))}"
        for folder, names in zip(folders, found, strict=True)
        if names != cases
    ]
    if missing:
        raise DatasetError(f"The folders hold probabilities of different cases: {'; '.join(missing)}")
    return sorted(cases)


def _validation_cases(model: Path, folds: Sequence[int | str]) -> dict[str, Path]:
    """Probabilities of each validation case of a model."""
    files: dict[str, Path] = {}
    missing = []
    for fold in folds:
        validation = model / f"fold_{fold}" / "validation"
        found = subfiles(validation, _ENDING) if validation.is_dir() else []
        if not found:
            missing.append(str(fold))
        for file in map(Path, found):
            if file.stem in files:
                raise DatasetError(
                    f"{file} and {files[file.stem]} are the same case in two folds: they were trained with different "
                    "splits"
                )
            files[file.stem] = file
    if missing:
        raise DatasetError(
            f"{model} has no probabilities of the validation of fold {', '.join(missing)}; make them with "
            "nnUNetv2_train ... --val --npz"
        )
    return files


def _document(folder: Path, name: str, given: Documents) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    file = folder / name if given is None else Path(given)
    if not file.is_file():
        raise DatasetError(f"There is no {file}, which says what the probabilities in {folder} mean")
    content: dict[str, Any] = load_json(file)
    return content


def _first(names: Sequence[str], number: int = 5) -> str:
    return ", ".join(names[:number]) + (" ..." if len(names) > number else "")
