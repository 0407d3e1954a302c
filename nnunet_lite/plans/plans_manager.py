"""PlansManager: the plans file of a dataset, its configurations and the classes it names."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from nnunet_lite.exceptions import PlansError
from nnunet_lite.extensions import find_class
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.checked_values import axis_order, folder_name, mapping, numbers, statistics, text
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import DatasetJson, short
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.migrations import migrate_plans
from nnunet_lite.utilities.files import PathLike, load_json
from nnunet_lite.utilities.logging import logger

# what of the plans as a whole decides how cases are preprocessed, beside the PREPROCESSING_KEYS of each configuration
PREPROCESSING_DOCUMENT_KEYS = (
    "image_reader_writer",
    "transpose_forward",
    "foreground_intensity_properties_per_channel",
)

# of the planners whose default plans have these names; that of nnUNetPlans needs no naming
PLANNERS_OF_PLANS = {
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


def available_plans(folder: PathLike) -> list[str]:
    """Identifiers of the plans files of a preprocessed dataset's folder, for example ["nnUNetPlans"]."""
    return [file.stem for file in sorted(Path(folder).glob("*.json")) if _is_plans_file(file)]


def plans_file(dataset_name: str, plans_identifier: str) -> Path:
    """Path of an existing plans file. Raises PlansError listing the plans that exist."""
    folder = nnUNet_preprocessed / dataset_name
    file = folder / f"{plans_identifier}.json"
    if not file.is_file():
        planner = PLANNERS_OF_PLANS.get(plans_identifier)
        made_by = "" if planner is None else f" -pl {planner}"
        command = f"make them first: nnUNetv2_plan_and_preprocess -d {dataset_name}{made_by}"
        if not Path(nnUNet_preprocessed).is_dir():
            raise PlansError(
                f"{dataset_name} has no plans {plans_identifier!r}: there is no folder "
                f"nnUNet_preprocessed={nnUNet_preprocessed}; correct the variable, or {command}"
            )
        existing = available_plans(folder)
        close = difflib.get_close_matches(plans_identifier, existing if planner is None else [], 1)
        hint = f"did you mean {close[0]}? Else " if close else ""
        raise PlansError(
            f"{dataset_name} has no plans {plans_identifier!r} (in {folder}: {', '.join(existing) or 'none'}); "
            f"{hint}{command}"
        )
    return file


def load_plans(path: PathLike) -> dict[str, Any]:
    """Read a plans file. Raises PlansError if it does not exist or holds no plans."""
    try:
        plans = load_json(path)
    except FileNotFoundError as error:
        existing = ", ".join(available_plans(Path(path).parent)) or "none"
        raise PlansError(f"There is no plans file {path}; plans in that folder: {existing}") from error
    except ValueError as error:
        raise PlansError(f"{path} is no JSON file ({error}); correct it or plan the dataset again") from error
    except OSError as error:
        raise PlansError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
        raise PlansError(f"{path} is no plans file: it has no 'configurations'; plan the dataset again")
    for name, configuration in plans["configurations"].items():
        if not isinstance(configuration, dict):
            raise PlansError(f"{path}: configuration {name!r} is {configuration!r}, expected keys and values in braces")
    return cast("dict[str, Any]", plans)


def _is_plans_file(file: Path) -> bool:
    try:
        content = load_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "configurations" in content


class PlansManager:
    """View of a plans file (nnU-Net v2 2.8.1 property names); `plans` keeps every key, known or not.

    Args:
        plans_file_or_dict: path of a plans file, or its content (not modified).

    Raises:
        PlansError: the file does not exist or holds no plans.
    """

    def __init__(self, plans_file_or_dict: PathLike | Mapping[str, Any]) -> None:
        if isinstance(plans_file_or_dict, Mapping):
            raw = copy.deepcopy(dict(plans_file_or_dict))
            self.source = "the plans"
        else:
            raw = load_plans(plans_file_or_dict)
            self.source = str(plans_file_or_dict)
        if not isinstance(raw.get("configurations"), dict):
            raise PlansError(f"{self.source} have no 'configurations'; plan the dataset again")
        self.plans: dict[str, Any] = migrate_plans(raw)
        self._configurations: dict[str, ConfigurationManager] = {}

    def __repr__(self) -> str:
        return f"PlansManager({self.plans.get('plans_name')!r}, configurations={self.available_configurations})"

    def _get(self, key: str) -> Any:
        try:
            return self.plans[key]
        except KeyError:
            raise PlansError(f"{self.source}: no key {key!r}; plan the dataset again") from None

    def _named(self, key: str) -> str:
        return f"{self.source}: {key}"

    def get_configuration(self, configuration_name: str) -> ConfigurationManager:
        """The configuration with everything it inherits; the same object for every call.

        Raises:
            PlansError: unknown name, unknown parent, or configurations that inherit from each other in a circle.
        """
        if str(configuration_name) not in self.plans["configurations"]:
            raise PlansError(
                f"Plans {self.plans.get('plans_name')} of {self.plans.get('dataset_name')} have no configuration "
                f"{configuration_name!r}; they have: {', '.join(self.available_configurations)}"
            )
        if configuration_name not in self._configurations:
            resolved = self._resolve(configuration_name)
            self._configurations[configuration_name] = ConfigurationManager(resolved, configuration_name)
        return self._configurations[configuration_name]

    def _resolve(self, name: str) -> dict[str, Any]:
        """A configuration over its parent over the parent's parent ..."""
        configurations = self.plans["configurations"]
        chain: list[str] = []
        parent: Any = name
        while parent is not None:
            if parent in chain:
                circle = " -> ".join([*chain, parent])
                raise PlansError(
                    f"{self.source}: the configurations inherit from each other in a circle: {circle[:300]}"
                )
            if not isinstance(parent, str) or parent not in configurations:
                raise PlansError(
                    f"{self.source}: configuration {chain[-1]!r} inherits from {short(parent)}, which does not exist; "
                    f"there are: {', '.join(configurations)}"
                )
            chain.append(parent)
            parent = mapping(configurations[parent], f"{self.source}: configuration {parent!r}").get("inherits_from")
        resolved: dict[str, Any] = {}
        for ancestor in reversed(chain):
            resolved.update(configurations[ancestor])
        return resolved

    @property
    def dataset_name(self) -> str:
        """DatasetXXX_Name."""
        return folder_name(self._get("dataset_name"), self._named("dataset_name"))

    @property
    def plans_name(self) -> str:
        """Identifier of these plans, equal to the file's name without .json."""
        return folder_name(self._get("plans_name"), self._named("plans_name"))

    @property
    def original_median_spacing_after_transp(self) -> list[float]:
        """Median spacing of the training cases in mm, transposed order."""
        return numbers(
            self._get("original_median_spacing_after_transp"), self._named("original_median_spacing_after_transp"), (3,)
        )

    @property
    def original_median_shape_after_transp(self) -> list[float]:
        """Median shape of the cropped training cases, transposed order."""
        return numbers(
            self._get("original_median_shape_after_transp"), self._named("original_median_shape_after_transp"), (3,)
        )

    @property
    def transpose_forward(self) -> list[int]:
        """Axis of the image that becomes axis i of the network's input."""
        return axis_order(self._get("transpose_forward"), self._named("transpose_forward"))

    @property
    def transpose_backward(self) -> list[int]:
        """Inverse of `transpose_forward`."""
        return axis_order(self._get("transpose_backward"), self._named("transpose_backward"))

    @property
    def available_configurations(self) -> list[str]:
        """Names of the configurations, in the file's order."""
        return list(self.plans["configurations"])

    @property
    def experiment_planner_name(self) -> str:
        """Class that made these plans."""
        return text(self._get("experiment_planner_used"), self._named("experiment_planner_used"))

    @cached_property
    def experiment_planner_class(self) -> Any:
        """The class called `experiment_planner_name`."""
        return find_class("planner", self.experiment_planner_name)

    @cached_property
    def image_reader_writer_class(self) -> Any:
        """Class that reads images and writes segmentations."""
        return find_class("reader_writer", text(self._get("image_reader_writer"), self._named("image_reader_writer")))

    @cached_property
    def label_manager_class(self) -> Any:
        """Class that turns network output into labels; LabelManager where old plans do not say."""
        if "label_manager" not in self.plans:
            logger.info("The plans name no label_manager; LabelManager is used")
        name = self.plans.get("label_manager", "LabelManager")
        return find_class("label_manager", text(name, self._named("label_manager")))

    def get_label_manager(self, dataset_json: Mapping[str, Any], **kwargs: Any) -> LabelManager:
        """The label manager for a dataset.json.

        Raises:
            DatasetError: the labels of dataset.json are not usable.
        """
        _ = DatasetJson(dataset_json).labels  # only sound ones; the manager reads them as they stand
        order = DatasetJson(dataset_json).regions_class_order
        return cast("LabelManager", self.label_manager_class(dataset_json["labels"], order, **kwargs))

    @property
    def foreground_intensity_properties_per_channel(self) -> dict[str, dict[str, float]]:
        """Foreground intensity statistics per channel ("0", "1", ...)."""
        key = "foreground_intensity_properties_per_channel"
        return statistics(self._get(key), self._named(key))
