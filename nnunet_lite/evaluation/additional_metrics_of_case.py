"""Surface distances, volumes and lesions of one case: masks of each class, cut to where it lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from nnunet_lite.evaluation.additional_metrics import ADDITIONAL, ClassMetrics, Request
from nnunet_lite.evaluation.lesion_counts import count_lesions
from nnunet_lite.evaluation.metrics import LabelOrRegion, Pair, compute_metrics_of_pair, geometry_difference, read_pair
from nnunet_lite.evaluation.surface_distances import surface_metrics
from nnunet_lite.exceptions import DatasetError

BYTES_PER_VOXEL = 12  # of the masks of one class, with their numbered components

_NO_THICKNESS = 998.0  # readers give the slice axis that 2D images do not have 999 times the spacing
_LARGEST_TABLE = 2**16  # labels above are not looked for; the whole image is their box


def compute_all_metrics(
    reference_file: str,
    prediction_file: str,
    image_reader_writer: Any,
    labels_or_regions: Sequence[LabelOrRegion],
    ignore_label: int | None,
    request: Request,
) -> dict[str, Any]:
    """As `compute_metrics`, with the metrics of `request` under the key `additional_metrics` (class -> metric).

    Raises:
        DatasetError: the two differ in shape or spacing, or a file cannot be read.
    """
    pair = read_pair(reference_file, prediction_file, image_reader_writer)
    difference = geometry_difference(pair.reference_properties, pair.prediction_properties)
    if difference is not None and difference.startswith("spacing"):
        raise DatasetError(
            f"{prediction_file} has {difference} in {reference_file}; distances and volumes in mm need "
            "one spacing: correct the header that is wrong, or evaluate without --metrics"
        )
    case = compute_metrics_of_pair(reference_file, prediction_file, pair, labels_or_regions, ignore_label)
    return {**case, ADDITIONAL: additional_metrics_of_pair(pair, labels_or_regions, ignore_label, request)}


def additional_metrics_of_pair(
    pair: Pair, classes: Sequence[LabelOrRegion], ignore_label: int | None, request: Request
) -> ClassMetrics:
    """The metrics of `request` for each class; spacing and axis order are those of the arrays.

    Voxels whose reference is `ignore_label` belong to neither mask.
    """
    reference, prediction = pair.reference[0], pair.prediction[0]
    spacing = [float(step) for step in pair.reference_properties["spacing"]]
    lacks_thickness = reference.shape[0] == 1 and spacing[0] >= _NO_THICKNESS * max(spacing[1:])
    flat = reference.ndim == 3 and 1 in reference.shape  # one slice: all that is measured is measured within it
    axis = reference.shape.index(1) if flat else 0
    boxes = _Boxes(reference, prediction)
    found: ClassMetrics = {}
    for entry, tolerance in zip(classes, request.tolerances, strict=True):
        members = (entry,) if isinstance(entry, int) else entry
        box = boxes.around(members)
        in_reference, in_prediction = _mask(reference[box], members), _mask(prediction[box], members)
        if ignore_label is not None:
            counted = reference[box] != ignore_label
            in_reference, in_prediction = in_reference & counted, in_prediction & counted
        values: dict[str, float] = {}
        if "volume" in request.families:
            values.update(_volumes(in_reference, in_prediction, spacing, lacks_thickness))
        steps = spacing
        if flat:
            in_reference, in_prediction = _plane(in_reference, axis), _plane(in_prediction, axis)
            steps = spacing[:axis] + spacing[axis + 1 :]
        if "surface" in request.families:
            values.update(surface_metrics(in_reference, in_prediction, steps, tolerance))
        if "lesion" in request.families:
            values.update(count_lesions(in_reference, in_prediction))
        found[entry] = values
    return found


def _mask(labels: NDArray[Any], members: Iterable[int]) -> NDArray[np.bool_]:
    mask = np.zeros(labels.shape, bool)
    for member in members:
        mask |= labels == member
    return mask


def _plane(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """A mask without its axis of length 1 (of length 0 where the class does not occur)."""
    return mask.reshape(mask.shape[:axis] + mask.shape[axis + 1 :])


class _Boxes:
    """Where labels lie, found for all of them in one pass over each image."""

    def __init__(self, *images: NDArray[Any]) -> None:
        self.shape = images[0].shape
        self.known = all(image.size and image.min() >= 0 and image.max() < _LARGEST_TABLE for image in images)
        self.found = [find_objects(image) for image in images] if self.known else []

    def around(self, members: Iterable[int]) -> tuple[slice, ...]:
        """The box that holds every voxel of these labels in all images; empty where there is none."""
        members = list(members)
        if not self.known or min(members) < 1:
            return tuple(slice(0, edge) for edge in self.shape)
        boxes = [found[member - 1] for found in self.found for member in members if member <= len(found)]
        boxes = [box for box in boxes if box is not None]
        if not boxes:
            return tuple(slice(0, 0) for _ in self.shape)
        return tuple(
            slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
            for axis in range(len(self.shape))
        )


def _volumes(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: Sequence[float], lacks_thickness: bool
) -> dict[str, float]:
    """Volumes in ml and their differences, prediction less reference; of images without thickness areas in mm2."""
    name, unit = ("area", "mm2") if lacks_thickness else ("volume", "ml")
    size = math.prod(spacing[1:]) if lacks_thickness else math.prod(spacing) / 1000
    n_ref, n_pred = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    difference = (n_pred - n_ref) * size
    relative = (n_pred - n_ref) / n_ref if n_ref else math.nan
    return {
        f"{name}_ref_{unit}": n_ref * size,
        f"{name}_pred_{unit}": n_pred * size,
        f"{name}_difference_{unit}": difference,
        f"absolute_{name}_difference_{unit}": abs(difference),
        f"relative_{name}_difference": relative,
        f"absolute_relative_{name}_difference": abs(relative),
    }
