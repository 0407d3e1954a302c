"""Overlap metrics of one case, all classes from a single pass over the voxels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError

LabelOrRegion = int | tuple[int, ...]

_CHUNK = 2**20  # voxels looked at together; their codes stay in the processor's cache
_LARGEST_TABLE = 2**12  # label values up to this range index a table directly


class JointHistogram(NamedTuple):
    """How often each pair of reference and predicted label value occurs."""

    reference_values: NDArray[np.integer[Any]]
    prediction_values: NDArray[np.integer[Any]]
    counts: NDArray[np.int64]  # (reference value, predicted value)


class _Codes(NamedTuple):
    """Label values as small non-negative numbers: `voxels - lowest` indexes `values`; `background` codes label 0."""

    values: NDArray[np.integer[Any]]
    voxels: NDArray[Any]
    lowest: int
    background: int


def _encode(segmentation: NDArray[Any]) -> _Codes:
    voxels = segmentation.ravel()
    if voxels.dtype == np.uint8:
        return _Codes(np.arange(256), voxels, 0, 0)
    lowest, highest = (min(0, int(voxels.min())), max(0, int(voxels.max()))) if voxels.size else (0, 0)
    if highest - lowest < _LARGEST_TABLE:
        return _Codes(np.arange(lowest, highest + 1), voxels, lowest, 0)
    values = np.union1d(voxels, [0]).astype(np.int64)
    return _Codes(values, np.searchsorted(values, voxels), 0, int(np.searchsorted(values, 0)))


def joint_histogram(reference: NDArray[Any], prediction: NDArray[Any]) -> JointHistogram:
    """Count every pair of label values; only voxels that are foreground in either are looked at closely.

    Args:
        reference, prediction: label maps of the same shape, any number of axes, whole numbers.
    """
    first, second = _encode(reference), _encode(prediction)
    width = len(second.values)
    counts = np.zeros(len(first.values) * width, np.int64)
    background = (first.background - first.lowest) * width + second.background - second.lowest
    for start in range(0, first.voxels.size, _CHUNK):
        rows, columns = first.voxels[start : start + _CHUNK], second.voxels[start : start + _CHUNK]
        foreground = np.flatnonzero((rows != first.background) | (columns != second.background))
        counts[background] += rows.size - foreground.size
        codes = (rows[foreground].astype(np.intp) - first.lowest) * width
        codes += columns[foreground].astype(np.intp) - second.lowest
        found = np.bincount(codes)
        counts[: found.size] += found
    return JointHistogram(first.values, second.values, counts.reshape(-1, width))


def class_metrics(
    histogram: JointHistogram, label_or_region: LabelOrRegion, ignore_label: int | None = None
) -> dict[str, float]:
    """Counts and overlap of one label, or of a region (the union of its labels).

    Voxels whose reference is `ignore_label` do not count; that value has no special meaning in the prediction.
    Dice and IoU are NaN if the class occurs in neither (nnU-Net v2 2.8.1 behaviour, spec 03, 7.1).

    Returns:
        TP, FP, FN, TN, n_pred, n_ref (voxels, whole numbers), Dice and IoU (0 to 1).
    """
    members = np.atleast_1d(label_or_region)
    counted = np.ones(len(histogram.reference_values), bool)
    if ignore_label is not None:
        counted = histogram.reference_values != ignore_label
    in_reference = np.isin(histogram.reference_values, members) & counted
    in_prediction = np.isin(histogram.prediction_values, members)
    total = int(histogram.counts[counted].sum())
    n_ref = int(histogram.counts[in_reference].sum())
    n_pred = int(histogram.counts[counted][:, in_prediction].sum())
    tp = int(histogram.counts[in_reference][:, in_prediction].sum())
    fp, fn = n_pred - tp, n_ref - tp
    union = tp + fp + fn
    return {
        "Dice": 2 * tp / (2 * tp + fp + fn) if union else float("nan"),
        "IoU": tp / union if union else float("nan"),
        "FP": fp,
        "TP": tp,
        "FN": fn,
        "TN": total - union,
        "n_pred": n_pred,
        "n_ref": n_ref,
    }


class Pair(NamedTuple):
    """A reference and the prediction to compare with it: label maps (1, *spatial) and what their reader said."""

    reference: NDArray[Any]
    reference_properties: Any
    prediction: NDArray[Any]
    prediction_properties: Any


def read_pair(reference_file: str, prediction_file: str, image_reader_writer: Any) -> Pair:
    """Read two label maps. Raises DatasetError if they differ in shape, or one cannot be read."""
    reference = image_reader_writer.read_seg(reference_file)
    prediction = image_reader_writer.read_seg(prediction_file)
    if reference[0].shape != prediction[0].shape:
        raise DatasetError(
            f"{prediction_file} has shape {_text(prediction[0].shape[1:])}, its reference {reference_file} has "
            f"{_text(reference[0].shape[1:])}; predictions must lie in the grid of the reference image"
        )
    return Pair(*reference, *prediction)


def compute_metrics(
    reference_file: str,
    prediction_file: str,
    image_reader_writer: Any,
    labels_or_regions: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
) -> dict[str, Any]:
    """Read one pair of segmentations and compare them.

    Args:
        image_reader_writer: a reader with `read_seg(file) -> ((1, *spatial), properties)`.
        labels_or_regions: classes, each a label or a tuple of labels.

    Returns:
        reference_file, prediction_file, and metrics: class -> metric -> value.

    Raises:
        DatasetError: the two differ in shape, or a file cannot be read.
    """
    pair = read_pair(reference_file, prediction_file, image_reader_writer)
    return compute_metrics_of_pair(reference_file, prediction_file, pair, labels_or_regions, ignore_label)


def compute_metrics_of_pair(
    reference_file: str,
    prediction_file: str,
    pair: Pair,
    labels_or_regions: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
) -> dict[str, Any]:
    """`compute_metrics` of what was read already."""
    histogram = joint_histogram(pair.reference, pair.prediction)
    return {
        "reference_file": reference_file,
        "prediction_file": prediction_file,
        "metrics": {entry: class_metrics(histogram, entry, ignore_label) for entry in labels_or_regions},
        "geometry_warning": geometry_difference(pair.reference_properties, pair.prediction_properties),
    }


def geometry_difference(reference: Any, prediction: Any) -> str | None:
    """What differs between the places of two images in the world, in a few words; None if nothing does."""
    expected, given = reference.get("spacing"), prediction.get("spacing")
    if expected is not None and given is not None and not np.allclose(expected, given, rtol=1e-3):
        return f"spacing {_text(given)}, its reference {_text(expected)}"
    for stuff, key in (("sitk_stuff", "origin"), ("sitk_stuff", "direction"), ("nibabel_stuff", "original_affine")):
        expected, given = ((properties.get(stuff) or {}).get(key) for properties in (reference, prediction))
        if expected is not None and given is not None and not np.allclose(expected, given, atol=1e-2):
            return f"{key} {_text(np.ravel(given))}, its reference {_text(np.ravel(expected))}"
    return None


def _text(numbers: Iterable[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"
