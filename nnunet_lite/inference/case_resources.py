"""What a case will take, from its header: voxels, tiles, and bytes in each step of its prediction.

Upper bounds, since how much of an image will be cropped shows only when it is read. No torch in here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnunet_lite.configuration import BANDED_PREDICTION_BYTES
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.inference.memory_of_sums import MemoryOfSums, bands_are_lines
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.resume import estimate_memory, memory_of_preprocessing, shapes_of_case
from nnunet_lite.utilities.memory import memory_limit

if TYPE_CHECKING:
    from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments

_EXPORT_BASE = 330 * 2**20  # bytes of an export worker before it gets a case: interpreter, torch, image libraries
_EXPORT_SLABS = 100 * 2**20  # bytes of the planes that are interpolated at a time

_SHARE_OF_PROCESSES = 1 / 3  # of the memory, for what background processes hold even while they have nothing to do

# Seconds of work a worker must take over to be worth its start: rough guesses, as are the costs per voxel below
_WORKER_START = {"preprocessing": 1.5, "export": 3.0}


class CaseSize(NamedTuple):
    """Size of an image; shapes in the axis order of the network."""

    channels: int
    before: tuple[int, ...]  # voxels of the image
    after: tuple[int, ...]  # voxels at the spacing of the network


class Demand(NamedTuple):
    """Bytes a case takes by estimate: while it is preprocessed, waits, is in the network, waits, is exported."""

    preprocessing: int = 0
    image: int = 0
    network: int = 0
    logits: int = 0
    export: int = 0


def size_of_case(case: CaseToPredict, documents: ModelDocuments, plans_manager: PlansManager) -> CaseSize | None:
    """Size of a case without reading its voxels; None where that cannot be known or be, or the file cannot be read."""
    if isinstance(case.image, np.ndarray):
        spacing: Any = (case.properties or {}).get("spacing")
        if case.image.ndim != 4 or np.shape(spacing) != (3,):
            return None
        channels, shape = case.image.shape[0], case.image.shape[1:]
    else:
        reader = plans_manager.image_reader_writer_class()
        if type(reader).read_header is BaseReaderWriter.read_header:  # it would read all voxels
            return None
        try:
            header = reader.read_header(case.image[0])
        except (DatasetError, OSError):
            return None
        channels, shape, spacing = int(header.shape[0]) * len(case.image), header.shape[1:], header.spacing
    if not all(0 < step < math.inf for step in spacing) or 0 in shape:
        return None
    before, after = shapes_of_case(shape, spacing, plans_manager, documents.configuration)
    if 4 * channels * math.prod(after) > memory_limit():
        return None  # preprocessing refuses it; its tiles would make the forecast useless for the others
    return CaseSize(channels, tuple(before), tuple(after))


def number_of_tiles(shape: Sequence[int], patch_size: Sequence[int], tile_step_size: float) -> int:
    """Tiles of an image (x, y, z) at the network's spacing; a 2D patch goes through every plane of the first axis."""
    flat = len(shape) - len(patch_size)
    count = math.prod(shape[:flat])
    for edge, tile in zip(shape[flat:], patch_size, strict=True):
        count *= math.ceil(max(0, edge - tile) / (tile * tile_step_size)) + 1
    return count


class Network(NamedTuple):
    """What of a model decides how much memory its logits take."""

    heads: int
    members: int = 1  # of the ensemble; the mean of several takes a second set of sums
    sums_here: bool = True  # sums over tiles are kept in main memory, not on a GPU
    bytes_per_sum: int = 2
    most_sums: int = BANDED_PREDICTION_BYTES  # larger ones are held in bands, see `most_bytes_of_sums`


def demand_of_case(
    case: CaseToPredict, size: CaseSize | None, documents: ModelDocuments, plans_manager: PlansManager, network: Network
) -> Demand:
    """Bytes a case takes in each step.

    Without a size, only what the size of its files tells.
    """
    if size is None:
        try:
            files = [] if isinstance(case.image, np.ndarray) else list(case.image)
            return Demand(estimate_memory(files, plans_manager, documents.configuration) if files else 0)
        except (DatasetError, OSError):
            return Demand()  # the worker will say what is wrong with the file
    before = math.prod(size.before)
    preprocessing = memory_of_preprocessing(size.channels, before, math.prod(size.after))
    channels = size.channels + (0 if case.previous is None else network.heads - 1)
    patch = documents.configuration.patch_size
    sums = MemoryOfSums(size.after, tuple(patch), network.heads, network.members, network.bytes_per_sum)
    image, logits, held = sums.image(channels), sums.logits, sums.whole
    bytes_per_label = 1 if network.heads <= 256 else 2
    if sums.whole > network.most_sums:  # only a band of the sums is held, and labels leave the network's step
        logits = bytes_per_label * before
        held = logits + sums.band(lines=bands_are_lines(patch, network.heads, size.after, size.before))
    return Demand(
        preprocessing=preprocessing + (image if case.previous is not None else 0),
        image=image,
        network=image + (held if network.sums_here else logits),
        logits=logits,
        export=_EXPORT_BASE + _EXPORT_SLABS + logits + 3 * bytes_per_label * before,
    )


def worthwhile_processes(
    preprocessing: int, export: int, sizes: Iterable[CaseSize | None], heads: int
) -> tuple[int, int]:
    """The requested numbers of processes, or 0 for a side whose whole work takes less time than starting one.

    A few small images are predicted before a worker has imported what it needs.
    """
    seconds = {"preprocessing": 0.0, "export": 0.0}
    for size in sizes:
        voxels = 0 if size is None else math.prod(size.before)
        seconds["preprocessing"] += 1e-7 * (0 if size is None else size.channels) * voxels
        seconds["export"] += (5e-8 + 5e-9 * heads) * voxels
    return (
        preprocessing if seconds["preprocessing"] > _WORKER_START["preprocessing"] else 0,
        export if seconds["export"] > _WORKER_START["export"] else 0,
    )


def affordable_processes(preprocessing: int, export: int, free: int) -> tuple[int, int]:
    """As many of these processes as leave most of `free` bytes to the cases; (0, 0) where a job has very little.

    A process that waits for its next case keeps the libraries it has loaded.
    """
    base = memory_of_preprocessing(0, 0, 0)
    while preprocessing * base + export * _EXPORT_BASE > max(0, _SHARE_OF_PROCESSES * free):
        if export >= preprocessing:
            export -= 1
        else:
            preprocessing -= 1
    return preprocessing, export
