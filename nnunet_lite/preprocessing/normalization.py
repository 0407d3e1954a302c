"""Intensity normalization schemes, one class per name that stands in plans; and which one a channel name asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError, PlansError

_LARGEST_PIECE = 2**24  # voxels


class ImageNormalization(ABC):
    """Base of all schemes. A scheme of one's own derives from this and is named in plans (spec 01, 7.3).

    Args:
        use_mask_for_norm: use and change only voxels inside the nonzero mask.
        intensityproperties: this channel's foreground statistics from the plans.
        target_dtype: float type of the result.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true: bool | None = None

    def __init__(
        self,
        use_mask_for_norm: bool | None = None,
        intensityproperties: dict[str, float] | None = None,
        target_dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.use_mask_for_norm = use_mask_for_norm
        self.intensityproperties = intensityproperties or {}
        self.target_dtype = target_dtype

    @property
    def epsilon(self) -> float:
        """Smallest divisor."""
        return 1e-4 if self.target_dtype is np.float16 else 1e-8

    def statistic(self, name: str) -> float:
        """A foreground statistic of the plans. Raises PlansError if they lack it."""
        if name not in self.intensityproperties:
            raise PlansError(
                f"{type(self).__name__} needs the foreground statistic {name!r}, which "
                "foreground_intensity_properties_per_channel of the plans lacks; plan the dataset again"
            )
        return float(self.intensityproperties[name])

    @abstractmethod
    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """Normalize one channel, in place if it has the target type already.

        Args:
            image: (x, y, z).
            seg: (x, y, z), negative outside the nonzero mask; needed with `use_mask_for_norm`.

        Returns:
            The normalized channel, (x, y, z), in the target type.
        """


class ZScoreNormalization(ImageNormalization):
    """(x - mean) / std of the case; statistics accumulated in float64.

    With a mask, statistics and change are limited to it: outside stays what it was, which is 0. An empty mask changes
    nothing.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = True

    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `ImageNormalization.run`."""
        image = image.astype(self.target_dtype, copy=False)
        if not self.use_mask_for_norm:
            _standardize(image, *_mean_and_std(image), self.epsilon)
            return image
        if seg is None:
            raise DatasetError(
                "Z-score normalization inside the nonzero mask (use_mask_for_norm) needs the mask, "
                "but no segmentation was given"
            )
        inside = seg >= 0
        values = image[inside]
        if values.size > 0:
            _standardize(values, *_mean_and_std(values), self.epsilon)
            image[inside] = values
        return image


class CTNormalization(ImageNormalization):
    """Clip to the foreground's 0.5 and 99.5 percentiles, then z-score with the foreground's mean and std."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `ImageNormalization.run`."""
        image = image.astype(self.target_dtype, copy=False)
        low, high = self.statistic("percentile_00_5"), self.statistic("percentile_99_5")
        mean, std = self.statistic("mean"), self.statistic("std")
        for piece in _pieces(image):
            np.clip(piece, low, high, out=piece)
        _standardize(image, mean, std, self.epsilon)
        return image


class NoNormalization(ImageNormalization):
    """Intensities as they are."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `ImageNormalization.run`."""
        return image.astype(self.target_dtype, copy=False)


class RescaleTo01Normalization(ImageNormalization):
    """Smallest value to 0, largest to 1."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `ImageNormalization.run`."""
        image = image.astype(self.target_dtype, copy=False)
        image -= image.min()
        image /= max(float(image.max()), self.epsilon)
        return image


class RGBTo01Normalization(ImageNormalization):
    """8-bit colours to [0, 1]."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: NDArray[Any], seg: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `ImageNormalization.run`. Raises DatasetError for values outside 0 to 255."""
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 255:
            raise DatasetError(
                f"RGB images must have values from 0 to 255, this one has {low:g} to {high:g}; "
                'correct the image, or give the channel another name than "rgb_to_0_1" in dataset.json'
            )
        image = image.astype(self.target_dtype, copy=False)
        image /= 255
        return image


def _pieces(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of the image: slices along the first axis, which stay in the cache during several passes.

    Larger ones (of slides, say) are cut, so that what is computed from a piece never is a copy of the image.
    """
    for piece in image if image.ndim > 1 else (image,):
        step = max(1, _LARGEST_PIECE * len(piece) // max(1, piece.size))
        yield from (piece[start : start + step] for start in range(0, len(piece), step))


def _mean_and_std(values: NDArray[Any]) -> tuple[float, float]:
    """Population statistics in float64, in two passes and without a float64 copy of the image."""
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in _pieces(values)) / values.size
    squares = sum(float(np.square(piece - mean, dtype=np.float64).sum()) for piece in _pieces(values))
    return mean, float(np.sqrt(squares / values.size))


def _standardize(image: NDArray[Any], mean: float, std: float, epsilon: float) -> None:
    for piece in _pieces(image):
        piece -= mean
        piece /= max(std, epsilon)
