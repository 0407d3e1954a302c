"""Whether preprocessed cases are those the plans describe, by a look at a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.geometry import network_spacing
from nnunet_lite.preprocessing.interpolation import compute_new_shape
from nnunet_lite.preprocessing.preprocess_command import preprocess_command

_LOOKED_AT = 3  # reading the properties of a case takes some hundredths of a second
_KNOWN_PREPROCESSOR = "DefaultPreprocessor"  # others may do as they like
_NO_RESAMPLING = "no_resampling"


def other_plans(dataset: Any, plans: PlansManager, configuration: ConfigurationManager) -> str | None:
    """A warning about cases whose shape these plans do not give, or None.

    A shape follows from what is remembered of the image (shape after cropping, spacing) and the plans' spacing. Nothing
    is said where that cannot be known: another preprocessor, no resampling, properties of another kind. One voxel of
    difference is rounding.
    """
    keys = configuration.configuration
    if keys.get("preprocessor_name") != _KNOWN_PREPROCESSOR or _NO_RESAMPLING in str(keys.get("resampling_fn_data")):
        return None
    for identifier in _spread(dataset.identifiers, _LOOKED_AT):
        try:
            stored = tuple(int(edge) for edge in dataset.load_arrays(identifier)[0].shape[1:])
            properties = dataset.load_properties(identifier)
            before = properties["shape_after_cropping_and_before_resampling"]
            spacing = [float(properties["spacing"][axis]) for axis in plans.transpose_forward]
            expected = compute_new_shape(before, spacing, network_spacing(configuration.spacing, spacing))
        except (nnUNetError, KeyError, IndexError, TypeError, ValueError):  # unreadable cases are named elsewhere
            continue
        if len(stored) != len(expected) or any(abs(a - b) > 1 for a, b in zip(stored, expected, strict=True)):
            return (
                f"{identifier} has {_shape(stored)} voxels in {dataset.source_folder}, and these plans (spacing "
                f"{list(configuration.spacing)}) make it {_shape(expected)}. If the plans were changed after "
                f"preprocessing, delete the folder and run {preprocess_command(dataset.source_folder)} again; the "
                "training goes on with it as is"
            )
    return None


def _spread(identifiers: Sequence[str], number: int) -> list[str]:
    """A few of many, from the first to the last."""
    if len(identifiers) <= number:
        return list(identifiers)
    return [identifiers[i * (len(identifiers) - 1) // (number - 1)] for i in range(number)]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(edge) for edge in shape)
