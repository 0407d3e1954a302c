"""Small functions that users' inference scripts import from upstream's modules; nothing here needs them itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.extensions import find_class, find_in_folder
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments, preprocess_case
from nnunet_lite.inference.prediction_cases import array_cases, case_name
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.plans.raw_dataset import list_image_cases
from nnunet_lite.utilities.files import PathLike, to_plain

_PACKAGE = Path(__file__).parents[1]
_KIND_OF_FOLDER = {
    "training": "trainer",
    "experiment_planning": "planner",
    "imageio": "reader_writer",
    "preprocessing": "preprocessor",
}


def recursive_find_python_class(folder: PathLike, class_name: str, current_module: str) -> Any:
    """The class of that name in a folder of the package or of the user's, or None (`find_class` in plain words).

    Args:
        folder: where to search, with its sub-folders.
        class_name: of a trainer, planner, preprocessor or reader in folders of the package, else anything.
        current_module: dotted name of the folder; only upstream needs it.
    """
    path = Path(folder).resolve()
    if not path.is_relative_to(_PACKAGE):
        return find_in_folder(path, class_name)
    kind = _KIND_OF_FOLDER.get(next(iter(path.relative_to(_PACKAGE).parts), ""), "trainer")
    try:
        return find_class(kind, class_name)
    except ExtensionError:
        return None


def recursive_fix_for_json_export(my_dict: dict[Any, Any]) -> None:
    """Replace numpy and torch values inside a dict by what JSON knows, in place."""
    plain = to_plain(_without_devices(my_dict))
    my_dict.clear()
    my_dict.update(plain)


def _without_devices(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_devices(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_devices(entry) for entry in value]
    return str(value) if isinstance(value, torch.device) else value


def create_lists_from_splitted_dataset_folder(
    folder: PathLike, file_ending: str, identifiers: Sequence[str] | None = None, num_processes: int = 12
) -> list[list[str]]:
    """Image files of each case of a folder, channels in order; of the named cases where `identifiers` are given."""
    cases = list_image_cases(folder, file_ending)
    return [cases[name] for name in (cases if identifiers is None else identifiers)]


def get_labelmanager_class_from_plans(plans: Mapping[str, Any]) -> Any:
    """The class that plans name for their labels."""
    return PlansManager(plans).label_manager_class


def preprocessing_iterator_fromfiles(
    list_of_lists: Sequence[Sequence[str]],
    list_of_segs_from_prev_stage_files: Sequence[str | None] | None,
    output_filenames_truncated: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: Mapping[str, Any],
    configuration_manager: ConfigurationManager,
    num_processes: int,
    pin_memory: bool = False,
    verbose: bool = False,
) -> Iterator[dict[str, Any]]:
    """Preprocessed cases of image files for `predict_from_data_iterator`, each made when it is asked for.

    `num_processes` and `pin_memory` are without effect: nnUNetPredictor has its own background work.
    """
    empty: list[None] = [None] * len(list_of_lists)
    ending = str(dataset_json["file_ending"])
    cases = [
        CaseToPredict(case_name(files[0], ending), list(files), previous, None, output)
        for files, previous, output in zip(
            list_of_lists, list_of_segs_from_prev_stage_files or empty, output_filenames_truncated or empty, strict=True
        )
    ]
    documents = ModelDocuments(plans_manager.plans, configuration_manager, dict(dataset_json))
    yield from _tensors(cases, documents, verbose)


def preprocessing_iterator_fromnpy(
    list_of_images: Sequence[NDArray[Any]],
    list_of_segs_from_prev_stage: Sequence[NDArray[Any] | None] | None,
    list_of_image_properties: Sequence[Mapping[str, Any]],
    truncated_ofnames: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: Mapping[str, Any],
    configuration_manager: ConfigurationManager,
    num_processes: int,
    pin_memory: bool = False,
    verbose: bool = False,
) -> Iterator[dict[str, Any]]:
    """Preprocessed cases of arrays; as `preprocessing_iterator_fromfiles`."""
    cases = array_cases(list(list_of_images), list_of_segs_from_prev_stage, list_of_image_properties, truncated_ofnames)
    documents = ModelDocuments(plans_manager.plans, configuration_manager, dict(dataset_json))
    yield from _tensors(cases, documents, verbose)


def _tensors(cases: Sequence[CaseToPredict], documents: ModelDocuments, verbose: bool) -> Iterator[dict[str, Any]]:
    for case in cases:
        item = preprocess_case(case, documents, verbose)
        yield {**item, "data": torch.from_numpy(item["data"])}
