"""Whether removing small components helps: decided from counts of voxels, without an image at hand.

A removal takes voxels of some labels to background. What that does to every metric follows from how many voxels of
each pair (reference label, predicted label) are removed, so a case is read once for any number of removals whose
labels do not meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.evaluation.metrics import JointHistogram, LabelOrRegion, class_metrics, joint_histogram, read_pair
from nnunet_lite.evaluation.summary import summarize
from nnunet_lite.postprocessing.connected_components import members_of, small_components, without_small_components


class CaseCounts(NamedTuple):
    """Voxels of a case per pair of labels, and of these the ones each candidate removes."""

    histogram: JointHistogram
    removed: list[NDArray[np.int64]]  # per candidate, of the histogram's shape

    def after(self, candidate: int) -> CaseCounts:
        """The counts once a candidate is accepted; the others remove what they did before."""
        taken = self.removed[candidate]
        counts = self.histogram.counts - taken
        counts[:, self.histogram.prediction_values.tolist().index(0)] += taken.sum(1)
        return self._replace(histogram=self.histogram._replace(counts=counts))


def count_case(
    reference_file: str,
    prediction_file: str,
    image_reader_writer: Any,
    accepted: Sequence[Any],
    candidates: Sequence[Any],
) -> CaseCounts:
    """Read a case, remove what is decided already, and count what each candidate would remove; task of a worker.

    Args:
        image_reader_writer: of both files.
        accepted: labels or regions of removals that come first, in order.
        candidates: labels or regions of removals to count; no label may be in two of them.

    Raises:
        DatasetError: the files differ in shape, or cannot be read.
    """
    pair = read_pair(reference_file, prediction_file, image_reader_writer)
    reference, prediction = pair.reference[0], without_small_components(pair.prediction[0], accepted)
    histogram = _present(joint_histogram(reference, prediction))
    found = small_components(prediction, [members_of(entry) for entry in candidates])
    rows, columns = len(histogram.reference_values), len(histogram.prediction_values)
    row = np.searchsorted(histogram.reference_values, reference.ravel()[found.voxels])
    column = np.searchsorted(histogram.prediction_values, prediction.ravel()[found.voxels])
    codes = (found.owner * rows + row) * columns + column
    counts = np.bincount(codes, minlength=len(candidates) * rows * columns).reshape(-1, rows, columns)
    return CaseCounts(histogram, list(counts))


def _present(histogram: JointHistogram) -> JointHistogram:
    """Only the values that occur, and background."""
    rows = (histogram.counts.sum(1) > 0) | (histogram.reference_values == 0)
    columns = (histogram.counts.sum(0) > 0) | (histogram.prediction_values == 0)
    return JointHistogram(
        histogram.reference_values[rows], histogram.prediction_values[columns], histogram.counts[rows][:, columns]
    )


def metrics_of_cases(
    cases: Sequence[CaseCounts], classes: Sequence[LabelOrRegion], ignore_label: int | None
) -> dict[str, Any]:
    """metric_per_case, mean and foreground_mean, as an evaluation of the files would give them."""
    return summarize(
        [
            {"metrics": {entry: class_metrics(case.histogram, entry, ignore_label) for entry in classes}}
            for case in cases
        ],
        classes,
    )


def improves_foreground(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the foreground mean of Dice is higher and that of no class lower; what is NaN vetoes nothing."""
    if not after["foreground_mean"]["Dice"] > before["foreground_mean"]["Dice"]:
        return False
    return not any(after["mean"][entry]["Dice"] < before["mean"][entry]["Dice"] for entry in before["mean"])


def improves_class(cases: Sequence[CaseCounts], candidate: int, entry: LabelOrRegion, ignore_label: int | None) -> bool:
    """Whether the mean Dice of a class is higher without its small components."""
    changed = [case.after(candidate) for case in cases]
    before, after = (
        metrics_of_cases(some, [entry], ignore_label)["mean"].get(entry, {}).get("Dice", math.nan)
        for some in (cases, changed)
    )
    return bool(after > before)
