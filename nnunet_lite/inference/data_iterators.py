"""Cases on their way to the network: what is to be predicted, and its preprocessing in background workers.

No torch in here, so that a preprocessing worker starts in a fraction of a second.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.inference.case_resources import Demand
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import image_channels
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.exchange_folder import ExchangeFolder
from nnunet_lite.utilities.files import storage_errors
from nnunet_lite.utilities.parallel import Task, WorkerPool
from nnunet_lite.utilities.waiting import error_of, wait_for_any

_LARGE = 2**26  # bytes; larger arrays go between processes as memory-mapped files, smaller ones through the pipe


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
    demands: Sequence[Demand],
    documents: ModelDocuments,
    pool: WorkerPool,
    exchange: ExchangeFolder | None = None,
    verbose: bool = False,
) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Yield (name, preprocessed case or the error it ended with) in input order; a few cases ahead of the consumer.

    Args:
        cases: to preprocess.
        demands: memory that each of them takes.
        documents: of the model.
        pool: does the work, and one case more than it has processes is prepared ahead; a pool of 0 processes does it
            here, when the case is asked for.
        exchange: for large arrays on their way between processes; None hands over all of them through the pipe.
        verbose: the preprocessor logs shapes.
    """
    ahead: deque[_Preprocessing] = deque()
    for case, demand in zip(cases, demands, strict=True):
        if not pool.size:
            yield _preprocess_here(case, demand, documents, pool, verbose)
            continue
        ahead.append(_Preprocessing(case, demand, documents, pool, exchange, verbose))
        if len(ahead) > pool.size + 1:
            yield ahead.popleft().result()
    while ahead:
        if len(ahead) == 1:
            ahead[0].wait()
            pool.close()  # idle processes are 200 MiB each, while the network has its last case
        yield ahead.popleft().result()


def _preprocess_here(
    case: CaseToPredict, demand: Demand, documents: ModelDocuments, pool: WorkerPool, verbose: bool
) -> tuple[str, dict[str, Any] | Exception]:
    with pool.budget.hold(demand.preprocessing):
        return _result(case.name, pool.submit(Task(case.name, preprocess_case, (case, documents, verbose))))


class _Preprocessing:
    """A case that is preprocessed in the background; as long as its image waits in memory, the budget knows."""

    def __init__(
        self,
        case: CaseToPredict,
        demand: Demand,
        documents: ModelDocuments,
        pool: WorkerPool,
        exchange: ExchangeFolder | None,
        verbose: bool,
    ) -> None:
        self._name = case.name
        self._budget = budget = pool.budget
        self._size = size = demand.image if waits_in_memory(demand.image, exchange) else 0
        folder = None if exchange is None else exchange.path
        self._future = pool.submit(
            Task(case.name, preprocess_case, (case, documents, verbose, folder), demand.preprocessing)
        )
        self._future.add_done_callback(lambda _: budget.keep(size))  # with self, the image would stay in a cycle

    def wait(self) -> None:
        """Until it has ended, in whatever way."""
        wait_for_any([self._future])

    def result(self) -> tuple[str, dict[str, Any] | Exception]:
        result = _result(self._name, self._future)
        self._budget.keep(-self._size)
        return result


def waits_in_memory(size: int, exchange: ExchangeFolder | None) -> bool:
    """Whether an array of so many bytes is handed over in memory rather than on a disk."""
    return exchange is None or exchange.in_memory or size < _LARGE


def _result(name: str, future: Future[Any]) -> tuple[str, dict[str, Any] | Exception]:
    error = error_of(future)
    if error is not None and not isinstance(error, Exception):
        raise error
    return name, future.result() if error is None else error


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Upstream's iterators, which need torch: `preprocessing_iterator_fromfiles`, `..._fromnpy`."""
        if name.startswith("preprocessing_iterator_"):
            return getattr(import_module("nnunet_lite.inference.upstream_helpers"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
