"""Labels from probabilities that come channel after channel, so that never all of them are in memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.plans.label_manager import LabelManager


class LabelReduction(Protocol):
    """Takes channels of shape (d0, d1, d2) in their order, then gives the label map."""

    def add(self, channel: NDArray[np.float32]) -> None:
        """Look at the next channel, which the caller may overwrite afterwards."""

    def labels(self) -> NDArray[Any]:
        """The label map."""


def label_reduction(label_manager: LabelManager, shape: tuple[int, ...]) -> LabelReduction:
    """What gives the labels that `convert_probabilities_to_segmentation` would, for probabilities of this shape.

    Args:
        shape: (heads, d0, d1, d2).
    """
    own = type(label_manager).convert_probabilities_to_segmentation
    if own is not LabelManager.convert_probabilities_to_segmentation:
        return OwnConversion(label_manager)
    return (PaintedRegions if label_manager.has_regions else LargestChannel)(label_manager, shape)


class LargestChannel:
    """Labels of the largest channel, the lowest on ties."""

    def __init__(self, label_manager: LabelManager, shape: tuple[int, ...]) -> None:
        self._values = label_manager.labels_of_channels
        self._dtype = label_manager.output_dtype
        self._index = np.zeros(shape[1:], np.uint16)
        self._best: NDArray[np.float32] | None = None
        self._number = 0

    def add(self, channel: NDArray[np.float32]) -> None:
        """Look at the next channel."""
        if self._best is None:
            self._best = channel.copy()
        else:
            larger = channel > self._best
            self._best[larger] = channel[larger]
            self._index[larger] = self._number
        self._number += 1

    def labels(self) -> NDArray[Any]:
        """The label map."""
        result = self._index if self._values is None else self._values[self._index]
        return result.astype(self._dtype)


class PaintedRegions:
    """Each region's label where its probability exceeds one half; later ones overwrite earlier ones."""

    def __init__(self, label_manager: LabelManager, shape: tuple[int, ...]) -> None:
        self._order = iter(label_manager.regions_class_order or ())
        self._labels = np.zeros(shape[1:], label_manager.output_dtype)

    def add(self, channel: NDArray[np.float32]) -> None:
        """Paint the next region."""
        self._labels[channel > 0.5] = next(self._order)

    def labels(self) -> NDArray[Any]:
        """The label map."""
        return self._labels


class OwnConversion:
    """All channels at once, for a label manager of a user's own."""

    def __init__(self, label_manager: LabelManager) -> None:
        self._label_manager = label_manager
        self._channels: list[NDArray[np.float32]] = []

    def add(self, channel: NDArray[np.float32]) -> None:
        """Keep the next channel."""
        self._channels.append(channel.copy())

    def labels(self) -> NDArray[Any]:
        """The label map."""
        return np.asarray(self._label_manager.convert_probabilities_to_segmentation(np.stack(self._channels)))
