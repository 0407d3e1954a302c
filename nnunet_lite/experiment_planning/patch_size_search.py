"""The one loop that fits patch and network into the GPU memory target; every planner uses it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nnunet_lite.exceptions import PlansError
from nnunet_lite.experiment_planning.network_topology import MIN_FEATURE_MAP_EDGE, NetworkTopology, determine_topology

_INITIAL_EDGE = {3: 256, 2: 2048}  # of a patch with isotropic spacing


def initial_patch_size(spacing: Sequence[float], median_shape: Sequence[float] | None = None) -> list[float]:
    """A patch of 256^3 (2D: 2048^2) voxels with the aspect ratio of the spacing, not larger than the median image.

    The values are whole unless clipped to a fractional median.
    """
    if min(spacing) <= 0:
        raise PlansError(f"The target spacing {list(spacing)} must be positive along every axis")
    inverse = [1 / s for s in spacing]
    dim = len(spacing)
    scale = (_INITIAL_EDGE[dim] ** dim / math.prod(inverse)) ** (1 / dim)
    patch: list[float] = [round(i * scale) for i in inverse]
    if median_shape is not None:
        patch = [min(p, m) for p, m in zip(patch, median_shape, strict=True)]
    return [max(1, p) for p in patch]


def find_patch_size(
    spacing: Sequence[float],
    median_shape: Sequence[float],
    fits: Callable[[NetworkTopology], bool],
    min_feature_map_size: int = MIN_FEATURE_MAP_EDGE,
) -> NetworkTopology:
    """Shrink the patch, always along the axis where it covers most of the median image, until it fits.

    nnU-Net v2 2.8.1 behaviour, except that a patch never becomes too small to be pooled at all: images that cannot be
    pooled get a patch larger than they are, and the smallest workable patch is returned even if it does not fit.

    Args:
        spacing: target spacing per axis, 2 or 3 axes.
        median_shape: median shape of the images at that spacing.
        fits: whether the network of a topology fits into the memory target.
    """
    patch = initial_patch_size(spacing, median_shape)
    topology = determine_topology(spacing, patch, min_feature_map_size)
    if topology.n_stages == 1:
        enlarged = _smallest_poolable(spacing, patch, min_feature_map_size)
        topology = determine_topology(spacing, enlarged, min_feature_map_size)
    tried = {topology.patch_size}
    while not fits(topology):
        smaller = _shrink(topology, spacing, median_shape, min_feature_map_size, tried)
        if smaller is None:
            break
        topology = smaller
        tried.add(topology.patch_size)
    return topology


def can_be_pooled(spacing: Sequence[float], median_shape: Sequence[float]) -> bool:
    """Whether images of this median shape are large enough for a U-Net of two stages without being padded."""
    return determine_topology(spacing, initial_patch_size(spacing, median_shape)).n_stages > 1


def _shrink(
    topology: NetworkTopology,
    spacing: Sequence[float],
    median_shape: Sequence[float],
    min_feature_map_size: int,
    tried: set[tuple[int, ...]],
) -> NetworkTopology | None:
    """The next smaller patch: one axis loses one divisor, the one that is valid after the shrinking; None if none can.

    Of equally large axes the last one is shortened. Patches that were tried already would repeat for ever.
    """
    patch = topology.patch_size
    order = sorted(range(len(patch)), key=lambda i: (patch[i] / median_shape[i], i), reverse=True)
    for axis in order:
        preview = _shortened(patch, axis, topology.divisor[axis])
        if preview[axis] < 1:
            continue
        divisor = determine_topology(spacing, preview, min_feature_map_size).divisor
        shorter = _shortened(patch, axis, divisor[axis])
        smaller = determine_topology(spacing, shorter, min_feature_map_size)
        if smaller.n_stages > 1 and smaller.patch_size not in tried:
            return smaller
    return None


def _shortened(patch: Sequence[int], axis: int, amount: int) -> list[int]:
    return [n - amount if i == axis else n for i, n in enumerate(patch)]


def _smallest_poolable(spacing: Sequence[float], patch: Sequence[float], min_feature_map_size: int) -> list[float]:
    """`patch` enlarged so that it can be pooled once: two fine axes to 8 voxels, or the only fine one to 12."""
    finest = min(spacing)
    fine = [i for i, s in enumerate(spacing) if s / finest < 2]
    enlarged = sorted(fine, key=lambda i: patch[i], reverse=True)[:2]
    edge = 2 * min_feature_map_size if len(enlarged) == 2 else 3 * min_feature_map_size
    return [max(p, edge) if i in enlarged else p for i, p in enumerate(patch)]
