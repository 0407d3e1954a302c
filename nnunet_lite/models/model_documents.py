"""dataset.json and plans.json of a model folder, looked at before anything is predicted or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import DatasetJson, image_channels
from nnunet_lite.plans.plans_manager import PlansManager


def require_predictable(
    plans_manager: PlansManager, configuration: ConfigurationManager, dataset_json: Mapping[str, Any]
) -> None:
    """Raise DatasetError or PlansError for what every case would stumble over."""
    DatasetJson(dataset_json).file_ending  # noqa: B018 - these properties raise what is wrong with them
    forward, backward = plans_manager.transpose_forward, plans_manager.transpose_backward
    if [forward[axis] for axis in backward] != [0, 1, 2]:
        raise PlansError(
            f"{plans_manager.source}: transpose_backward {backward} is not the inverse of transpose_forward {forward}; "
            "copy plans.json from the training again"
        )
    configuration.require_poolable_patch()
    configuration.spacing  # noqa: B018
    plans_manager.image_reader_writer_class()
    schemes, channels = configuration.normalization_schemes, image_channels(dataset_json)
    if len(schemes) != len(channels):
        raise PlansError(
            f"{plans_manager.source}: configuration {configuration.name} normalizes {len(schemes)} channels "
            f"({', '.join(schemes)}), dataset.json names {len(channels)} ({', '.join(channels)}); "
            "copy both files from the training again"
        )
