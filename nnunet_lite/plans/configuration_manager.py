"""ConfigurationManager: one configuration of a plans file (2d, 3d_fullres, ...), inheritance resolved."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, cast

from nnunet_lite.exceptions import PlansError
from nnunet_lite.extensions import find_class
from nnunet_lite.plans.checked_values import entries, folder_name, mapping, numbers, numbers_or_none, text, whole_number
from nnunet_lite.plans.dataset_json import short
from nnunet_lite.plans.migrations import migrate_configuration

PREPROCESSING_KEYS = (  # what decides how the cases of a configuration are preprocessed
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


class ConfigurationManager:
    """Typed view of one configuration (nnU-Net v2 2.8.1 property names).

    `configuration` is this object's own dict and stays writable: a trainer that changes `configuration["batch_size"]`
    sees the change through the properties. Classes and functions named in it are looked up once per instance.

    Args:
        configuration_dict: the configuration, with everything it inherits; not modified.
        name: for messages.

    Raises:
        PlansError: an old form that cannot be converted; later, a property whose key is missing.
    """

    def __init__(self, configuration_dict: Mapping[str, Any], name: str = "") -> None:
        self.configuration: dict[str, Any] = migrate_configuration(copy.deepcopy(dict(configuration_dict)))
        self.name = name

    def __getstate__(self) -> dict[str, Any]:
        return {"configuration": self.configuration, "name": self.name}

    def __repr__(self) -> str:
        return f"ConfigurationManager({self.name!r}, {self.configuration!r})"

    def _named(self, key: str) -> str:
        return f"Configuration {self.name or '(unnamed)'} of the plans: {key}"

    def _get(self, key: str) -> Any:
        try:
            return self.configuration[key]
        except KeyError:
            raise PlansError(
                f"Configuration {self.name or '(unnamed)'} of the plans has no {key!r}; "
                "add it, or plan the dataset again: nnUNetv2_plan_experiment"
            ) from None

    @property
    def data_identifier(self) -> str:
        """Folder of the preprocessed cases below nnUNet_preprocessed/<dataset>."""
        return folder_name(self._get("data_identifier"), self._named("data_identifier"))

    @property
    def preprocessor_name(self) -> str:
        """Class that preprocesses this configuration."""
        return text(self._get("preprocessor_name"), self._named("preprocessor_name"))

    @cached_property
    def preprocessor_class(self) -> Any:
        """The class called `preprocessor_name`."""
        return find_class("preprocessor", self.preprocessor_name)

    def require_classes(self) -> None:
        """Look up every class and function that preprocessing and export take from this configuration.

        Raises:
            ExtensionError: one of them does not exist; said once here, where it would fail for each case.
        """
        for scheme in self.configuration.get("normalization_schemes", ()):
            find_class("normalization", scheme)
        for part in ("preprocessor_class", "resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"):
            getattr(self, part)

    @property
    def batch_size(self) -> int:
        """Patches per training batch."""
        return whole_number(self._get("batch_size"), self._named("batch_size"))

    @property
    def patch_size(self) -> list[int]:
        """Edges of a patch in voxels, 2 or 3 axes, transposed order."""
        return numbers(self._get("patch_size"), self._named("patch_size"), whole=True)

    @property
    def median_image_size_in_voxels(self) -> list[float]:
        """Median shape of the resampled training cases, transposed order."""
        return numbers(self._get("median_image_size_in_voxels"), self._named("median_image_size_in_voxels"))

    @property
    def spacing(self) -> list[float | None]:
        """Target spacing in mm, transposed order; two entries for 2d. None keeps the case's own along that axis."""
        return numbers_or_none(self._get("spacing"), self._named("spacing"))

    @property
    def normalization_schemes(self) -> list[str]:
        """Normalization class per channel."""
        return entries(self._get("normalization_schemes"), self._named("normalization_schemes"), str)

    @property
    def use_mask_for_norm(self) -> list[bool]:
        """Per channel: normalize inside the nonzero mask only."""
        return entries(self._get("use_mask_for_norm"), self._named("use_mask_for_norm"), bool)

    @property
    def network_arch_class_name(self) -> str:
        """Dotted name of the network class."""
        return text(self._architecture("network_class_name"), self._named("network_class_name"))

    @property
    def network_arch_init_kwargs(self) -> dict[str, Any]:
        """Arguments of the network class."""
        return mapping(self._architecture("arch_kwargs"), self._named("arch_kwargs"))

    @property
    def network_arch_init_kwargs_req_import(self) -> list[str]:
        """Which of the arguments are dotted names of classes; plans for transformers say null for none."""
        names = self._architecture("_kw_requires_import")
        return [] if names is None else entries(names, self._named("_kw_requires_import"), str)

    @property
    def pool_op_kernel_sizes(self) -> list[list[int]]:
        """Stride per stage and axis; the first stage has stride 1."""
        strides = self.network_arch_init_kwargs.get("strides")
        if not isinstance(strides, (list, tuple)):
            raise PlansError(f"{self._named('strides')} is {short(strides)}, expected a list with one entry per stage")
        return cast("list[list[int]]", strides)

    def require_poolable_patch(self) -> None:
        """Check that a U-Net with these strides can put a patch together again after pooling it.

        Raises:
            PlansError: an edge of the patch is not divisible by the product of its strides, one voxel is all that is
                left of it, these are no strides, or strides of another number of axes.
        """
        strides, patch = self.network_arch_init_kwargs.get("strides"), self.patch_size
        if not isinstance(strides, (list, tuple)) or not strides:
            return
        axes = {len(stride) if isinstance(stride, (list, tuple)) else 0 for stride in strides}
        if 0 not in axes and axes != {len(patch)}:
            raise PlansError(
                f"Configuration {self.name or '(unnamed)'}: patch_size {list(patch)} has {len(patch)} axes, the "
                f"network's strides have {sorted(axes)}; correct the plans, or plan the dataset again"
            )
        if axes != {len(patch)}:
            return
        checked = [numbers(stride, self._named("strides"), whole=True) for stride in strides]
        divisors = [math.prod(map(int, axis)) for axis in zip(*checked, strict=True)]
        if any(edge % divisor for edge, divisor in zip(patch, divisors, strict=True)):
            nearest = [max(1, round(edge / divisor)) * divisor for edge, divisor in zip(patch, divisors, strict=True)]
            raise PlansError(
                f"Configuration {self.name or '(unnamed)'}: patch_size {list(patch)} must be divisible by {divisors}, "
                f"the product of the network's strides per axis; the nearest that is: {nearest}"
            )
        if list(patch) == divisors and "InstanceNorm" in str(self.network_arch_init_kwargs.get("norm_op")):
            raise PlansError(
                f"Configuration {self.name or '(unnamed)'}: pooling by {divisors} leaves one voxel of patch_size "
                f"{list(patch)}, which instance normalization cannot learn from; double an edge or remove a stage"
            )

    def _architecture(self, key: str) -> Any:
        architecture = mapping(self._get("architecture"), self._named("architecture"))
        if key not in architecture:
            raise PlansError(
                f"The architecture of configuration {self.name or '(unnamed)'} has no {key!r}; "
                "add it, or plan the dataset again: nnUNetv2_plan_experiment"
            )
        return architecture[key]

    @cached_property
    def resampling_fn_data(self) -> Callable[..., Any]:
        """Resampling of images: call with (array, new_shape, current_spacing, new_spacing)."""
        return self._resampling("resampling_fn_data")

    @cached_property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """Resampling of label maps: call with (array, new_shape, current_spacing, new_spacing)."""
        return self._resampling("resampling_fn_seg")

    @cached_property
    def resampling_fn_probabilities(self) -> Callable[..., Any]:
        """Resampling of logits or probabilities: call with (array, new_shape, current_spacing, new_spacing)."""
        return self._resampling("resampling_fn_probabilities")

    def _resampling(self, key: str) -> Callable[..., Any]:
        arguments = mapping(self._get(f"{key}_kwargs"), self._named(f"{key}_kwargs"))
        return partial(find_class("resampling", text(self._get(key), self._named(key))), **arguments)

    @property
    def batch_dice(self) -> bool:
        """Compute the Dice loss over the whole batch instead of per sample."""
        return bool(self._get("batch_dice"))

    @property
    def next_stage_names(self) -> list[str] | None:
        """Configurations that are trained on this one's predictions (cascade), or None."""
        names = self.configuration.get("next_stage")
        if names is None or isinstance(names, str):
            return names if names is None else [names]
        return entries(names, self._named("next_stage"), str)

    @property
    def previous_stage_name(self) -> str | None:
        """Configuration whose predictions are an additional input (cascade), or None."""
        name = self.configuration.get("previous_stage")
        return None if name is None else text(name, self._named("previous_stage"))
