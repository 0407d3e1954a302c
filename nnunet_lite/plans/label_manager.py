"""LabelManager: what the network's output channels mean; logits to probabilities to segmentation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import image_channels
from nnunet_lite.utilities.arrays import slices
from nnunet_lite.utilities.wording import counted

Array = Any  # a numpy array or a torch tensor; this module needs torch only where it is given one or must return one
Label = int | tuple[int, ...]

_SIGMOID_ONE_HALF = np.float32(1.5 * 2**-24)  # up to here torch's float32 sigmoid rounds to 0.5


class _ProvidesLabelManager(Protocol):
    def get_label_manager(self, dataset_json: Mapping[str, Any]) -> LabelManager: ...


class LabelManager:
    """Labels of a dataset: plain labels, regions (labels that may overlap) and the ignore label.

    nnU-Net v2 2.8.1 behaviour and names. Works on numpy arrays and torch tensors alike and returns the kind it is
    given, except `apply_inference_nonlin`, which returns a tensor.

    Args:
        label_dict: `labels` of dataset.json: name -> int, or -> list of ints (a region). Its order counts: region i
            is output channel i.
        regions_class_order: the label painted for each region; later ones overwrite earlier ones.
        force_use_labels: treat the dataset as plain labels although it has regions.
        inference_nonlin: replaces sigmoid (regions) or softmax over axis 0 (labels).

    Raises:
        DatasetError: background missing or not 0, ignore label not the highest, regions without their order.
    """

    def __init__(
        self,
        label_dict: Mapping[str, Any],
        regions_class_order: Sequence[int] | None,
        force_use_labels: bool = False,
        inference_nonlin: Callable[[Array], Array] | None = None,
    ) -> None:
        self.label_dict = dict(label_dict)
        order = regions_class_order
        self.regions_class_order = None if order is None else [_as_int("regions_class_order", v) for v in order]
        self._force_use_labels = force_use_labels
        self._sanity_check()
        default = _sigmoid if self.has_regions else _softmax
        self.inference_nonlin: Callable[[Array], Array] = inference_nonlin or default

    def _sanity_check(self) -> None:
        background = self.label_dict.get("background")
        if background is None or _is_region(background) or _as_int("background", background) != 0:
            raise DatasetError(
                f"labels of dataset.json: background is {background!r}, expected 0; labels are {self.label_dict}"
            )
        highest = max(self.all_labels)
        ignore = self.label_dict.get("ignore")
        if ignore is not None and not (type(ignore) is int or (isinstance(ignore, float) and ignore.is_integer())):
            raise DatasetError(f"labels of dataset.json: ignore is {ignore!r}, expected a whole number")
        if ignore is not None and ignore != highest + 1:
            raise DatasetError(
                f"labels of dataset.json: ignore is {ignore}, expected the highest label plus one, {highest + 1}; "
                "renumber it in dataset.json and in the label files"
            )
        regions = self.all_regions
        if regions is not None and len(self.regions_class_order or ()) != len(regions):
            raise DatasetError(
                f"regions_class_order of dataset.json is {self.regions_class_order}, expected one label for each of "
                f"the {len(regions)} regions {regions}"
            )

    @property
    def has_regions(self) -> bool:
        """Whether any label is a list of more than one value (single-element lists alone do not make regions)."""
        return not self._force_use_labels and any(
            _is_region(value) and len(value) > 1 for value in self.label_dict.values()
        )

    @property
    def has_ignore_label(self) -> bool:
        """Whether voxels may be marked as not annotated."""
        return self.ignore_label is not None

    @property
    def ignore_label(self) -> int | None:
        """The label of voxels that are not annotated, or None."""
        ignore = self.label_dict.get("ignore")
        return None if ignore is None else int(ignore)

    @cached_property
    def _all_labels(self) -> tuple[int, ...]:
        labels: set[int] = set()
        for name, value in self.label_dict.items():
            if name != "ignore":
                labels.update(_as_int(name, entry) for entry in (value if _is_region(value) else (value,)))
        return tuple(sorted(labels))

    @property
    def all_labels(self) -> list[int]:
        """Every label in ascending order, background included, ignore label excluded; a new list each time."""
        return list(self._all_labels)

    @property
    def foreground_labels(self) -> list[int]:
        """`all_labels` without background."""
        return [label for label in self._all_labels if label != 0]

    @property
    def all_regions(self) -> list[Label] | None:
        """One entry per output channel, in the order of the dict (lists become tuples); None without regions."""
        if not self.has_regions:
            return None
        regions: list[Label] = []
        for name, value in self.label_dict.items():
            region: Label = tuple(_as_int(name, v) for v in value) if _is_region(value) else _as_int(name, value)
            if name != "ignore" and set(_members(region)) != {0}:
                regions.append(region)
        return regions

    @property
    def foreground_regions(self) -> list[Label]:
        """`all_regions`, which never hold background. Raises DatasetError without regions."""
        regions = self.all_regions
        if regions is None:
            raise DatasetError(f"The labels {self.label_dict} have no regions; use foreground_labels")
        return regions

    @property
    def num_segmentation_heads(self) -> int:
        """Output channels of the network."""
        return len(self.foreground_regions) if self.has_regions else len(self._all_labels)

    @property
    def output_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Smallest unsigned type that holds every label a segmentation can get."""
        written = (self.regions_class_order or ()) if self.has_regions else self._all_labels
        return np.uint8 if max(written, default=0) < 255 else np.uint16

    def require_consecutive_labels(self) -> None:
        """Raise DatasetError unless plain labels are 0, 1, 2 ..., as training needs them: its targets are channels."""
        if not self.has_regions and self.all_labels != list(range(len(self._all_labels))):
            raise DatasetError(
                f"labels of dataset.json are {self.all_labels}, expected consecutive numbers "
                f"{list(range(len(self._all_labels)))}; renumber them in dataset.json and in the label files"
            )

    @cached_property
    def labels_of_channels(self) -> NDArray[np.int64] | None:
        """The label that each output channel stands for, or None where channel i is label i (or a region)."""
        consecutive = self._all_labels == tuple(range(len(self._all_labels)))
        return None if self.has_regions or consecutive else np.array(self._all_labels)

    @property
    def has_default_nonlinearity(self) -> bool:
        """Whether probabilities are softmax (labels) or sigmoid (regions), and not a function of somebody's own."""
        own = type(self).apply_inference_nonlin is not LabelManager.apply_inference_nonlin
        return not own and self.inference_nonlin is (_sigmoid if self.has_regions else _softmax)

    def apply_inference_nonlin(self, logits: Array) -> Array:
        """Probabilities (heads, *spatial) as a float32 tensor, from logits of any float type, array or tensor."""
        tensor = _torch().from_numpy(logits) if isinstance(logits, np.ndarray) else logits
        return self.inference_nonlin(tensor.float())

    def convert_probabilities_to_segmentation(self, predicted_probabilities: Array) -> Array:
        """Label map (*spatial) from probabilities (heads, *spatial).

        Labels: that of the largest channel, the lowest index on ties, int64. Regions: painted in the order of
        `regions_class_order` where the probability exceeds 0.5, uint16 for arrays and int16 for tensors.

        Raises:
            DatasetError: wrong number of channels.
        """
        self._check_heads(predicted_probabilities)
        if not self.has_regions:
            return self._label_of_largest(predicted_probabilities)
        return self._paint_regions(predicted_probabilities, _above_one_half)

    def convert_logits_to_segmentation(self, predicted_logits: Array) -> Array:
        """Label map (*spatial) from logits (heads, *spatial), one channel at a time and without probabilities.

        Types and errors as `convert_probabilities_to_segmentation`. A nonlinearity of one's own is applied to regions.
        """
        self._check_heads(predicted_logits)
        if not self.has_regions:
            return self._label_of_largest(predicted_logits)
        if self.inference_nonlin is _sigmoid:
            return self._paint_regions(predicted_logits, _sigmoid_above_one_half)
        return self._paint_regions(self.inference_nonlin(_float32(predicted_logits)), _above_one_half)

    def _label_of_largest(self, channels: Array) -> Array:
        index = channels.argmax(0)
        labels = self.labels_of_channels
        if labels is None:
            return index
        return labels[index] if isinstance(index, np.ndarray) else index.new_tensor(labels)[index]

    def _check_heads(self, array: Array) -> None:
        if len(array) != self.num_segmentation_heads:
            raise DatasetError(
                f"An array of {counted(len(array), 'channel')} was given, but the labels {self.label_dict} need "
                f"{self.num_segmentation_heads}; do dataset.json and the model belong together?"
            )

    def _paint_regions(self, channels: Array, is_foreground: Callable[[Array], Array]) -> Array:
        order = self.regions_class_order or []
        if isinstance(channels, np.ndarray):
            segmentation: Array = np.zeros(channels.shape[1:], dtype=np.uint16)
        else:
            segmentation = channels.new_zeros(channels.shape[1:], dtype=_torch().int16)
        for channel, label in zip(channels, order, strict=True):
            segmentation[is_foreground(channel)] = label
        return segmentation

    def revert_cropping_on_probabilities(
        self, predicted_probabilities: Array, bbox: Sequence[Sequence[int]], original_shape: Sequence[int]
    ) -> Array:
        """Probabilities (heads, *original_shape) from those inside the box: outside, background is certain.

        Args:
            predicted_probabilities: (heads, *shape of the box).
            bbox: half-open box per spatial axis.
            original_shape: spatial shape before cropping.
        """
        shape = (len(predicted_probabilities), *original_shape)
        if isinstance(predicted_probabilities, np.ndarray):
            full: Array = np.zeros(shape, dtype=predicted_probabilities.dtype)
        else:
            full = predicted_probabilities.new_zeros(shape)
        if not self.has_regions:
            full[0] = 1
        inside = (slice(None), *slices(bbox))
        full[inside] = predicted_probabilities
        return full


def convert_labelmap_to_one_hot(segmentation: Array, all_labels: Sequence[int], output_dtype: Any = None) -> Array:
    """One channel per listed label: (len(all_labels), *segmentation.shape); labels not listed are zero everywhere.

    Args:
        segmentation: label map, array or tensor.
        all_labels: labels in channel order; may leave out background.
        output_dtype: numpy or torch type; default uint8, uint16 if a label needs it (tensors: int16 then).
    """
    small = max(all_labels, default=0) < 255
    shape = (len(all_labels), *segmentation.shape)
    if isinstance(segmentation, np.ndarray):
        one_hot: Array = np.empty(shape, dtype=output_dtype or (np.uint8 if small else np.uint16))
    else:
        torch = _torch()
        one_hot = segmentation.new_empty(shape, dtype=output_dtype or (torch.uint8 if small else torch.int16))
    for channel, label in enumerate(all_labels):
        one_hot[channel] = segmentation == label
    return one_hot


def determine_num_input_channels(
    plans_manager: _ProvidesLabelManager,
    configuration_or_config_manager: ConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> int:
    """Input channels of the network: image channels, plus one per foreground label of a cascade's previous stage.

    Raises:
        DatasetError: no channel names.
    """
    channels = len(image_channels(dataset_json))
    label_manager = plans_manager.get_label_manager(dataset_json)
    cascade = configuration_or_config_manager.previous_stage_name is not None
    return channels + (len(label_manager.foreground_labels) if cascade else 0)


def _is_region(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _members(region: Label) -> Iterable[int]:
    return region if isinstance(region, tuple) else (region,)


def _as_int(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0 or (isinstance(value, float) and number != value):
        raise DatasetError(f"labels of dataset.json: {name!r} is {value!r}, expected a whole number or a list of them")
    return number


def _torch() -> Any:
    """torch, which is loaded already wherever tensors exist; evaluation and planning never pay for it."""
    return sys.modules.get("torch") or import_module("torch")


def _softmax(logits: Array) -> Array:
    """Softmax over axis 0 of an array or tensor."""
    if not isinstance(logits, np.ndarray):
        return logits.softmax(0)
    result = np.exp(logits - logits.max(0, keepdims=True))
    result /= result.sum(0, keepdims=True)
    return result


def _sigmoid(logits: Array) -> Array:
    """Sigmoid of an array or tensor."""
    if not isinstance(logits, np.ndarray):
        return logits.sigmoid()
    with np.errstate(over="ignore"):
        result: NDArray[Any] = 1 / (1 + np.exp(-logits))
    return result


def _above_one_half(probabilities: Array) -> Array:
    return probabilities > 0.5


def _sigmoid_above_one_half(logits: Array) -> Array:
    """Where the float32 sigmoid of one channel exceeds 0.5; no exponential is needed for an array."""
    if isinstance(logits, np.ndarray):
        return _float32(logits) > _SIGMOID_ONE_HALF
    return logits.float().sigmoid() > 0.5


def _float32(array: Array) -> Array:
    return array.astype(np.float32, copy=False) if isinstance(array, np.ndarray) else array.float()
