"""Cases on their way to the network: what is to be predicted, and its preprocessing in background workers.

No torch in here, so that a preprocessing worker starts in a fraction of a second.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import image_channels
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.resume import estimate_memory
from nnunet_lite.utilities.files import storage_errors
from nnunet_lite.utilities.parallel import Task, WorkerPool

_LARGE = 2**26  # bytes; larger arrays go between processes as memory-mapped files, smaller ones through the pipe

# Seconds of work a worker must take over to be worth its start: rough guesses, as are the costs per voxel below
_WORKER_START = {"preprocessing": 1.5, "export": 3.0}


class CaseToPredict(NamedTuple):
    """One case as the caller gave it."""

    name: str
    image: Sequence[str] | NDArray[Any]  # files in channel order, or (c, d0, d1, d2)
    previous: str | NDArray[Any] | None = None  # previous stage's segmentation: file, or (1, d0, d1, d2)
    properties: Mapping[str, Any] | None = None  # of an array; must have spacing
    output: str | None = None  # path without file ending, None to return the result


class ModelDocuments(NamedTuple):
    """The documents a background process needs; small and picklable."""

    plans: dict[str, Any]
    configuration: ConfigurationManager
    dataset_json: dict[str, Any]


def preprocess_case(
    case: CaseToPredict, documents: ModelDocuments, verbose: bool = False, exchange_folder: str | None = None
) -> dict[str, Any]:
    """What the network gets of a case.

    Args:
        case: files or arrays.
        documents: of the model.
        verbose: the preprocessor logs shapes.
        exchange_folder: large data is left there as a `.npy` file instead of being returned (between processes).

    Returns:
        `data` (c, x, y, z) float32 or the name of a `.npy` file, `data_properties`, `ofile`. The one-hot segmentation
        of a previous stage stands behind the image channels.

    Raises:
        DatasetError: an image cannot be read, holds NaN, or does not fit the model; names the file.
    """
    plans_manager = PlansManager(documents.plans)
    preprocessor = documents.configuration.preprocessor_class(verbose=verbose)
    managers = (plans_manager, documents.configuration, documents.dataset_json)
    arguments: tuple[Any, ...] = (case.image, case.previous, dict(case.properties or {}), *managers)
    run = preprocessor.run_case_npy
    if isinstance(case.image, np.ndarray):
        _check_array(case, documents.configuration, documents.dataset_json)
    else:
        run, arguments = preprocessor.run_case, (list(case.image), case.previous, *managers)
    takes_option = "with_class_locations" in inspect.signature(run).parameters  # one ported from upstream has it not
    data, seg, properties = run(*arguments, **({"with_class_locations": False} if takes_option else {}))
    if not isinstance(case.image, np.ndarray):
        properties.update(plans_manager.image_reader_writer_class().properties_for_writing(case.image[0]))
    if case.previous is not None:
        labels = plans_manager.get_label_manager(documents.dataset_json).foreground_labels
        data = np.concatenate([data, convert_labelmap_to_one_hot(seg[0], labels, data.dtype)])
    data = np.ascontiguousarray(data, np.float32)
    return {
        "data": hand_over(data, exchange_folder) if exchange_folder else data,
        "data_properties": properties,
        "ofile": case.output,
    }


def _check_array(case: CaseToPredict, configuration: ConfigurationManager, dataset_json: Mapping[str, Any]) -> None:
    """Raise DatasetError, naming the case, for an array that the model cannot be given."""
    assert isinstance(case.image, np.ndarray)
    shape, channels = case.image.shape, len(image_channels(dataset_json))
    if len(shape) != 4 or shape[0] != channels or 0 in shape:
        raise DatasetError(
            f"{case.name}: an array of shape {shape}; expected ({channels}, d0, d1, d2): the channels the model was "
            "trained with, then three axes as its image reader returns them (2D images with d0 = 1)"
        )
    spacing: Any = (case.properties or {}).get("spacing")
    if np.shape(spacing) != (3,) or not all(step > 0 for step in spacing):
        raise DatasetError(
            f"{case.name}: its properties have spacing {spacing}; expected three positive numbers in the order of the "
            "array's axes, as the image reader returns them"
        )
    stage = configuration.previous_stage_name
    if (case.previous is None) != (stage is None):
        raise DatasetError(
            f"{case.name}: this configuration is the second stage of a cascade and needs the segmentation that {stage} "
            "predicts of the same image"
            if stage is not None
            else f"{case.name}: a previous stage's segmentation was given, but this configuration is not the second "
            "stage of a cascade; leave it out"
        )
    if isinstance(case.previous, np.ndarray) and case.previous.shape != (1, *shape[1:]):
        raise DatasetError(
            f"{case.name}: the previous stage's segmentation has shape {case.previous.shape}, "
            f"expected {(1, *shape[1:])}"
        )


def hand_over(array: NDArray[Any], exchange_folder: str) -> NDArray[Any] | str:
    """The array itself if it is small, else the name of a `.npy` file with it (the receiver deletes it)."""
    if array.nbytes < _LARGE:
        return array
    with storage_errors(os.path.join(exchange_folder, "the array for another process")):
        descriptor, name = tempfile.mkstemp(suffix=".npy", dir=exchange_folder)
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, array)
    return name


def preprocessed_cases(
    cases: Sequence[CaseToPredict],
    documents: ModelDocuments,
    pool: WorkerPool,
    processes: int,
    exchange_folder: str,
    verbose: bool = False,
) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Yield (name, preprocessed case or the error it ended with) in input order; a few cases ahead of the consumer.

    Args:
        cases: to preprocess.
        documents: of the model.
        pool: does the work; a pool of 0 processes does it here, when the case is asked for.
        processes: size of the pool; that many cases are prepared ahead, and one more.
        exchange_folder: for large arrays on their way between processes.
        verbose: the preprocessor logs shapes.
    """
    folder = exchange_folder if processes else None
    ahead: deque[tuple[str, Future[Any]]] = deque()
    for case in cases:
        memory = 0 if isinstance(case.image, np.ndarray) or not processes else _memory(case, documents)
        task = Task(case.name, preprocess_case, (case, documents, verbose, folder), memory)
        ahead.append((case.name, pool.submit(task)))
        if len(ahead) > (processes + 1 if processes else 0):
            yield _result(*ahead.popleft())
    while ahead:
        yield _result(*ahead.popleft())


def _result(name: str, future: Future[Any]) -> tuple[str, dict[str, Any] | Exception]:
    error = future.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return name, future.result() if error is None else error


def _memory(case: CaseToPredict, documents: ModelDocuments) -> int:
    try:
        return int(estimate_memory(list(case.image), PlansManager(documents.plans), documents.configuration))
    except DatasetError:
        return 0  # the worker will say what is wrong with the file


def worthwhile_processes(
    preprocessing: int, export: int, cases: Iterable[CaseToPredict], documents: ModelDocuments, heads: int
) -> tuple[int, int]:
    """The requested numbers of processes, or 0 for a side whose whole work takes less time than starting one.

    A few small images are predicted before a worker has imported what it needs.
    """
    seconds = {"preprocessing": 0.0, "export": 0.0}
    reader = PlansManager(documents.plans).image_reader_writer_class()
    for case in cases:
        channels, voxels = _size(case, reader)
        seconds["preprocessing"] += 1e-7 * channels * voxels
        seconds["export"] += (5e-8 + 5e-9 * heads) * voxels
        if all(seconds[side] > start for side, start in _WORKER_START.items()):
            break
    return (
        preprocessing if seconds["preprocessing"] > _WORKER_START["preprocessing"] else 0,
        export if seconds["export"] > _WORKER_START["export"] else 0,
    )


def _size(case: CaseToPredict, reader: Any) -> tuple[int, float]:
    """(channels, voxels) of a case without reading its voxels; (0, 0) where the file cannot be read."""
    if isinstance(case.image, np.ndarray):
        return case.image.shape[0], float(np.prod(case.image.shape[1:]))
    try:
        shape = reader.read_header(case.image[0]).shape
    except (DatasetError, OSError, AttributeError):
        return 0, 0.0
    return shape[0] * len(case.image), float(np.prod(shape[1:]))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Upstream's iterators, which need torch: `preprocessing_iterator_fromfiles`, `..._fromnpy`."""
        if name.startswith("preprocessing_iterator_"):
            return getattr(import_module("nnunet_lite.inference.upstream_helpers"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
