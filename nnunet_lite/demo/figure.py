"""A picture of one case: image, reference and prediction in three planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nnunet_lite.utilities.files import PathLike, atomic_path

_COLOURS = ListedColormap(["#e8743b", "#3bb3e8", "#7bd148", "#b45cd6"])
_PLANES = ("axial", "coronal", "sagittal")


def save_comparison(
    image: NDArray[Any],
    reference: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    file: PathLike,
    title: str = "",
) -> None:
    """Write a PNG with a row per plane through the middle of the reference: image, reference, prediction.

    Args:
        image, reference, prediction: (z, y, x).
        spacing: voxel size in mm (z, y, x); the planes are drawn in their true proportions.
        file: ends in .png.
    """
    foreground = np.argwhere(reference > 0)
    centre = foreground.mean(0).astype(int) if len(foreground) else np.array(image.shape) // 2
    low, high = np.percentile(image, [1, 99.5])
    figure = Figure(figsize=(8.4, 9.0), layout="constrained")
    axes = figure.subplots(3, 3)
    for axis, plane in enumerate(_PLANES):
        rows, columns = (spacing[other] for other in range(3) if other != axis)
        for column, labels in enumerate((None, reference, prediction)):
            panel = axes[axis, column]
            panel.imshow(image.take(centre[axis], axis), cmap="gray", vmin=low, vmax=high, aspect=rows / columns)
            if labels is not None:
                section = np.ma.masked_equal(labels.take(centre[axis], axis), 0)
                panel.imshow(
                    section, cmap=_COLOURS, vmin=1, vmax=4, alpha=0.55, aspect=rows / columns, interpolation="nearest"
                )
            panel.set(xticks=[], yticks=[])
        axes[axis, 0].set_ylabel(plane)
    for panel, name in zip(axes[0], ("image", "reference", "prediction"), strict=True):
        panel.set_title(name)
    figure.suptitle(title)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110)
