"""Pictures of all training cases, raw or preprocessed: the slice that shows most of every class, in colour."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import usable_processes
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.experiment_planning.overlay_picture import (
    Slice,
    contours,
    generate_overlay,
    save_picture,
    save_picture_with_legend,
    select_slice_to_plot2,
    stamp_of,
    windowed,
)
from nnunet_lite.experiment_planning.verify_dataset_integrity import choose_reader
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.case_files import RawCase
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.plans_manager import PlansManager, plans_file
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
from nnunet_lite.utilities.wording import counted

_COLOUR_NAMES = {"r", "g", "b", "a", "red", "green", "blue", "alpha", "rgb_to_0_1"}
_WORKER_BASE = 200 * 2**20  # bytes of interpreter and libraries
_BYTES_PER_VOXEL = 12  # of a raw case: as stored, as float32, and its labels
_FORMAT = 1  # raise it when the same settings give another picture


class Style(NamedTuple):
    """How labels are drawn."""

    overlay_intensity: float = 0.6
    outlines: bool = False
    names: Mapping[int, str] | None = None  # label -> name, for a legend; None: the slice alone, voxel by voxel


def plot_overlay(
    image_file: str,
    segmentation_file: str,
    image_reader_writer: BaseReaderWriter,
    output_file: PathLike,
    overlay_intensity: float = 0.6,
    *,
    channel: int = 0,
    style: Style | None = None,
    stamp: str = "",
) -> None:
    """Draw one raw case to a PNG; a 2D colour image in its colours if the channel is its first.

    Args:
        channel: index within the file, which may hold several.
        style: instead of `overlay_intensity`.
        stamp: note kept in the PNG.

    Raises:
        DatasetError: a file cannot be read, or image and label map have different shapes.
    """
    data, properties = image_reader_writer.read_images([image_file])
    seg = image_reader_writer.read_seg(segmentation_file)[0][0]
    if data.shape[1:] != seg.shape:
        raise DatasetError(
            f"{image_file} has shape {list(data.shape[1:])}, its label map {segmentation_file} {list(seg.shape)}; "
            "they must be equal"
        )
    if channel >= data.shape[0]:
        raise DatasetError(f"{image_file} has {counted(data.shape[0], 'channel')}, asked for was channel {channel}")
    z = select_slice_to_plot2(data[channel], seg)
    spacing = properties["spacing"]
    coloured = channel == 0 and type(image_reader_writer).__name__ == "NaturalImage2DIO" and data.shape[0] in (3, 4)
    plane = np.moveaxis(data[:3, z], 0, -1) if coloured else windowed(data[channel, z])
    title = Path(output_file).stem + (f", slice {z}" if len(seg) > 1 else "")
    shown = Slice(plane, seg[z], title, float(spacing[1] / spacing[2]))
    _save(shown, output_file, style or Style(overlay_intensity), stamp)


def plot_overlay_preprocessed(
    dataset: nnUNetBaseDataset,
    k: str,
    output_folder: PathLike,
    overlay_intensity: float = 0.6,
    channel_idx: int = 0,
    *,
    coloured: bool = False,
    style: Style | None = None,
    stamp: str = "",
) -> None:
    """Draw case `k` of a preprocessed dataset to `output_folder`/k.png; what was outside the crop counts as background.

    Args:
        coloured: take the first three channels for red, green and blue.
        style: instead of `overlay_intensity`.
        stamp: note kept in the PNG.

    Raises:
        DatasetError: a file of the case is missing or damaged, or it has no such channel.
    """
    data, seg, _ = dataset.load_arrays(k)
    if channel_idx >= data.shape[0]:
        raise DatasetError(f"{k} has {counted(data.shape[0], 'channel')}, asked for was channel {channel_idx}")
    labels = np.maximum(np.asarray(seg[0]), 0)
    z = select_slice_to_plot2(labels, labels)
    if coloured:
        plane = _common_scale(np.moveaxis(np.asarray(data[:3, z]), 0, -1))
    else:
        plane = windowed(np.asarray(data[channel_idx, z]))
    shown = Slice(plane, labels[z], k + (f", slice {z}" if len(labels) > 1 else ""))
    _save(shown, Path(output_folder) / f"{k}.png", style or Style(overlay_intensity), stamp)


def _common_scale(plane: NDArray[Any]) -> NDArray[np.float64]:
    """Colours (y, x, 3) that were normalized by channel, brought to one range again."""
    scaled = np.stack([windowed(plane[..., c]) for c in range(plane.shape[2])], -1)
    low, high = scaled.min((0, 1)), scaled.max((0, 1))
    return np.asarray((scaled - low) / np.where(high > low, high - low, 1))


def _save(shown: Slice, file: PathLike, style: Style, stamp: str) -> None:
    image, labels, intensity = shown.image, shown.labels, style.overlay_intensity
    if style.outlines:
        labels, intensity = contours(labels), 1.0
        image = np.array(image)
        image[labels > 0] = image.min()  # outlines hide so little that they may be opaque
    picture = generate_overlay(image, labels, overlay_intensity=intensity)
    if style.names is None:
        save_picture(picture, file, stamp)
    else:
        save_picture_with_legend(picture, shown, style.names, file, stamp)


class Run(NamedTuple):
    """How the pictures of a dataset are made."""

    num_processes: int | None = None
    overwrite: bool = False
    max_ram: int | None = None
    show_progress: bool = True
    outlines: bool = False
    legend: bool = False


def generate_overlays_from_raw(
    dataset_name_or_id: int | str,
    output_folder: PathLike,
    num_processes: int | None = None,
    channel_idx: int = 0,
    overlay_intensity: float = 0.6,
    run: Run | None = None,
) -> None:
    """Draw every training case of a raw dataset to `output_folder`/<case>.png (spec 03, 8.4).

    Pictures that were made of the same files in the same way are kept.

    Args:
        num_processes: background processes (default: nnUNet_def_n_proc); 0 works in this one.
        channel_idx: the channel that is shown; 0 of a 2D colour image shows its colours.
        overlay_intensity: factor of the colours.

    Raises:
        DatasetError: the dataset or files of it are missing, or cases that cannot be drawn, a line each.
        ArgumentError: no such channel, or an intensity below 0.
        StorageError: the pictures cannot be written.
    """
    run = _run(run, num_processes)
    _require_intensity(overlay_intensity)
    dataset = RawDataset.load(dataset_name_or_id)
    num_channels = dataset.dataset_json.num_input_channels
    _require_channel(channel_idx, num_channels)
    reader = choose_reader(dataset)
    style = _style(dataset.dataset_json, overlay_intensity, run)
    tasks = []
    for case in dataset.cases.values():
        image, channel = _file_and_channel(case, channel_idx, num_channels)
        output = Path(output_folder) / f"{case.identifier}.png"
        stamp = _stamp([image, str(case.label)], channel_idx, style)
        if run.overwrite or stamp_of(output) != stamp:
            args = (image, str(case.label), reader, os.fspath(output), channel, style, stamp)
            tasks.append(Task(case.identifier, _plot_raw, args, _memory(reader, image)))
    _draw(tasks, len(dataset.cases), output_folder, run)


def _plot_raw(
    image: str, label: str, reader: type[BaseReaderWriter], output: str, channel: int, style: Style, stamp: str
) -> None:
    plot_overlay(image, label, reader(), output, channel=channel, style=style, stamp=stamp)


def generate_overlays_from_preprocessed(
    dataset_name_or_id: int | str,
    output_folder: PathLike,
    num_processes: int | None = None,
    channel_idx: int = 0,
    configuration: str | None = None,
    plans_identifier: str = "nnUNetPlans",
    overlay_intensity: float = 0.6,
    run: Run | None = None,
) -> None:
    """Draw every case of a preprocessed configuration to `output_folder`/<case>.png; else as from raw data.

    Args:
        configuration: default 3d_fullres where the plans have it, else 2d.

    Raises:
        PlansError: no such plans or configuration.
        DatasetError: the configuration is not preprocessed, or cases that cannot be drawn, a line each.
    """
    run = _run(run, num_processes)
    _require_intensity(overlay_intensity)
    name = maybe_convert_to_dataset_name(dataset_name_or_id)
    plans = PlansManager(plans_file(name, plans_identifier))
    if configuration is None:
        configuration = "3d_fullres" if "3d_fullres" in plans.available_configurations else "2d"
    folder = nnUNet_preprocessed / name / plans.get_configuration(configuration).data_identifier
    document = DatasetJson.from_file(nnUNet_preprocessed / name / "dataset.json")
    _require_channel(channel_idx, document.num_input_channels)
    coloured = channel_idx == 0 and _is_colour(document)
    style = _style(document, overlay_intensity, run)
    dataset_class = infer_dataset_class(folder)
    identifiers = dataset_class.get_identifiers(folder)
    tasks = []
    for identifier in identifiers:
        files = [
            str(file) for end in (".b2nd", "_seg.b2nd", ".npz") if (file := folder / f"{identifier}{end}").exists()
        ]
        stamp = _stamp(files, channel_idx, style)
        if run.overwrite or stamp_of(Path(output_folder) / f"{identifier}.png") != stamp:
            dataset = dataset_class(folder, [identifier])
            args = (dataset, identifier, os.fspath(output_folder), channel_idx, coloured, style, stamp)
            tasks.append(Task(identifier, _plot_preprocessed, args, _preprocessed_memory(dataset, identifier)))
    _draw(tasks, len(identifiers), output_folder, run)


def _plot_preprocessed(
    dataset: nnUNetBaseDataset, k: str, folder: str, channel: int, coloured: bool, style: Style, stamp: str
) -> None:
    plot_overlay_preprocessed(dataset, k, folder, channel_idx=channel, coloured=coloured, style=style, stamp=stamp)


def _draw(tasks: list[Task], num_cases: int, output_folder: PathLike, run: Run) -> None:
    tasks.sort(key=lambda task: task.memory, reverse=True)
    processes = usable_processes(run.num_processes)
    collect(
        run_tasks(
            tasks,
            processes,
            description="Drawing",
            show_progress=run.show_progress and bool(tasks),
            max_ram=run.max_ram,
        )
    )
    kept = num_cases - len(tasks)
    logger.info("%s: %d pictures%s", output_folder, num_cases, f", {kept} of them from before" if kept else "")


def _run(run: Run | None, num_processes: int | None) -> Run:
    run = run or Run()
    return run if num_processes is None else run._replace(num_processes=num_processes)


def _require_intensity(intensity: float) -> None:
    if not (math.isfinite(intensity) and intensity >= 0):
        raise ArgumentError(f"overlay_intensity is {intensity}; expected a number from 0, for example 0.6")


def _require_channel(channel: int, num_channels: int) -> None:
    if not 0 <= channel < num_channels:
        raise ArgumentError(f"channel_idx is {channel}, but the dataset has the channels 0 to {num_channels - 1}")


def _is_colour(document: DatasetJson) -> bool:
    names = [name.lower() for name in document.channel_names]
    return len(names) in (3, 4) and set(names) <= _COLOUR_NAMES


def _style(document: DatasetJson, intensity: float, run: Run) -> Style:
    if not run.legend:
        return Style(intensity, run.outlines)
    names: dict[int, str] = {}
    for name, value in document.labels.items():  # of a label that belongs to several regions, all names
        for label in value if isinstance(value, list) else [value]:
            names[label] = f"{names[label]}, {name}" if label in names else name
    return Style(intensity, run.outlines, names)


def _stamp(files: Iterable[str], channel: int, style: Style) -> str:
    """All that a picture depends on."""
    states = [(Path(file).name, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    return json.dumps([_FORMAT, states, channel, style])


def _file_and_channel(case: RawCase, channel: int, num_channels: int) -> tuple[str, int]:
    """The file that holds a channel, and the channel's number in it; files may hold several each."""
    per_file = max(1, num_channels // len(case.images))
    return case.images[min(channel // per_file, len(case.images) - 1)], channel % per_file


def _memory(reader: type[BaseReaderWriter], image: str) -> int:
    """Bytes that drawing a raw case needs by estimate; 0 if its image cannot be read, which drawing it will say."""
    try:
        return _WORKER_BASE + _BYTES_PER_VOXEL * math.prod(reader().read_header(image).shape)
    except DatasetError:
        return 0


def _preprocessed_memory(dataset: nnUNetBaseDataset, identifier: str) -> int:
    try:
        data, seg, _ = dataset.load_arrays(identifier)
    except DatasetError:
        return 0
    whole = 4 * math.prod(data.shape) if isinstance(data, np.ndarray) else 0
    return int(_WORKER_BASE + whole + 8 * math.prod(seg.shape))
