"""Rules of planning as functions of numbers; each gives what is decided together with why, for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import ArgumentError

_TAKEN_NAMES = ("dataset", "dataset_fingerprint", "dataset_fingerprint_sources", "splits_final")


class TargetSpacing(NamedTuple):
    """Spacing of 3d_fullres in the images' axis order (mm), and the rule it follows from."""

    spacing: NDArray[np.float64]
    reason: str


def choose_target_spacing(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]], anisotropy_threshold: float
) -> TargetSpacing:
    """Per-axis median; of one coarse axis the 10th percentile, so that thin slices keep their detail (spec 01, 6.3).

    Args:
        spacings, shapes: one triple per case, mm and voxels.
        anisotropy_threshold: an axis is coarse if its spacing is above this times that of the others, and its number
            of voxels below theirs by the same factor.
    """
    target: NDArray[np.float64] = np.median(np.vstack(spacings).astype(float), 0)
    size = np.median(np.vstack(shapes), 0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    finest_needed = max(target[others])
    if target[coarse] <= anisotropy_threshold * finest_needed or size[coarse] * anisotropy_threshold >= min(
        size[others]
    ):
        return TargetSpacing(target, "median of all cases, per axis")
    percentile = np.percentile(np.vstack(spacings)[:, coarse], 10)
    if percentile >= finest_needed:
        target[coarse] = percentile
        return TargetSpacing(target, f"median; of the coarse axis {coarse} the 10th percentile")
    target[coarse] = finest_needed + 1e-5
    return TargetSpacing(target, f"median; axis {coarse} is coarse in most cases but not in all: as fine as the others")


def resampled_shapes(
    spacings: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
    target: Sequence[float],
    transpose_forward: Sequence[int],
) -> NDArray[np.float64]:
    """Shape of every case at a target spacing, (cases, 3), transposed; at least one voxel per axis.

    Args:
        target: mm, transposed; two entries leave the distance of slices as it is in each case.
    """
    own = np.array(spacings, dtype=float)[:, transpose_forward]
    sizes = np.array(shapes, dtype=float)[:, transpose_forward]
    if len(target) == 2:
        target_of_cases = np.column_stack([own[:, 0], np.tile(target, (len(own), 1))])
    else:
        target_of_cases = np.tile(np.array(target, dtype=float), (len(own), 1))
    resampled: NDArray[np.float64] = np.maximum(1, np.round(own / target_of_cases * sizes))
    return resampled


class BatchSize(NamedTuple):
    """A batch size and what it is the smallest (or, with `minimum`, the largest) of."""

    value: int
    by_memory: int
    by_dataset: int
    by_planner: int | None
    minimum: int

    @property
    def reason(self) -> str:
        """Which of the limits counts."""
        if self.value == self.minimum and min(self.by_memory, self.by_dataset) < self.minimum:
            return "the minimum"
        if self.value == self.by_planner:
            return "planner's limit"
        return "dataset size" if self.by_dataset < self.by_memory else "GPU memory"


def choose_batch_size(
    memory_ratio: float,
    reference_batch_size: int,
    dataset_voxels: float,
    max_dataset_covered: float,
    patch_size: Sequence[int],
    minimum: int,
    maximum: int | None = None,
) -> BatchSize:
    """Largest batch that fits into memory and holds no more than a part of the dataset (spec 01, 6.6).

    Args:
        memory_ratio: memory that there is / memory that the reference batch of this patch needs.
        dataset_voxels: of all training cases together, resampled.
        max_dataset_covered: largest part of them in one batch.
    """
    by_memory = round(memory_ratio * reference_batch_size)
    by_dataset = round(dataset_voxels * max_dataset_covered / math.prod(patch_size))
    limit = min(by_memory, by_dataset, *([] if maximum is None else [maximum]))
    return BatchSize(max(limit, minimum), by_memory, by_dataset, maximum, minimum)


class ConfigurationNotes(NamedTuple):
    """What led to one configuration, beside what its plans say."""

    first_patch: tuple[int, ...]
    """Where the search for a patch began: the median image, or 256^3 (2D: 2048^2) voxels if that is larger."""
    shrunk: int
    """How often the patch was shortened until the network fitted into memory."""
    fits: bool
    batch_size: BatchSize
    memory_gb: float
    """GPU memory that training is expected to take, by the planner's measure."""

    @property
    def patch_reason(self) -> str:
        """What the patch is limited by."""
        if not self.fits:
            return "smallest possible"
        return "GPU memory" if self.shrunk else "image size"


def plain_numbers(values: Sequence[Any] | NDArray[Any]) -> list[Any]:
    """A list of Python numbers from any sequence or array; whole numbers stay whole."""
    found: list[Any] = np.asarray(values).tolist()
    return found


def checked_target_spacing(spacing: Sequence[float | str] | None) -> list[float] | None:
    """Three positive numbers, or None. Raises ArgumentError for anything else."""
    if spacing is None:
        return None
    try:
        values = [float(s) for s in spacing]
    except (TypeError, ValueError):
        values = []
    if len(values) != 3 or not all(0 < s < math.inf for s in values):
        raise ArgumentError(
            f"overwrite_target_spacing is {list(spacing)}, expected three positive numbers (mm), one per image axis"
        )
    return values


def checked_plans_name(name: str) -> str:
    """A name that can be that of a file beside the others. Raises ArgumentError for anything else."""
    if not name or set(name) & set('/\\:*?"<>|') or name != name.strip(" .") or name.endswith(".json"):
        raise ArgumentError(f"plans name {name!r}: expected a file name without folder and ending, such as nnUNetPlans")
    if name in _TAKEN_NAMES:
        raise ArgumentError(f"plans name {name!r} is that of another file of the preprocessed dataset; choose another")
    return name


def checked_memory_target(target: float | None, default: float) -> float:
    """GB to plan for, the planner's default if nothing is asked for. Raises ArgumentError unless it is positive."""
    if target is None:
        return default
    if not 0 < target < math.inf:
        raise ArgumentError(f"gpu_memory_target is {target}, expected a positive number of GB")
    return target
