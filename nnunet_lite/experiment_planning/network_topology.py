"""How often a patch can be pooled, with which kernels, and how large the feature maps get: arithmetic on shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MIN_FEATURE_MAP_EDGE = 4
UNLIMITED_POOLING = 999999


class NetworkTopology(NamedTuple):
    """What follows from a patch and its spacing. Kernel and stride i belong to stage i; one entry per spatial axis."""

    num_pool_per_axis: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisor: tuple[int, ...]

    @property
    def n_stages(self) -> int:
        """Resolution levels; 1 means that nothing can be pooled."""
        return len(self.strides)


def determine_topology(
    spacing: Sequence[float],
    patch_size: Sequence[float],
    min_feature_map_size: int = MIN_FEATURE_MAP_EDGE,
    max_num_pool: int = UNLIMITED_POOLING,
) -> NetworkTopology:
    """Strides, kernels and the padded patch (nnU-Net v2 2.8.1 behaviour).

    Axes are pooled while their feature map stays at least `min_feature_map_size` and their spacing is within a factor
    of two of the finest one that can be pooled. A kernel is 1 along an axis until its spacing is within a factor of two
    of the finest of all, then 3.

    Args:
        spacing: mm per axis, 2 or 3 axes.
        patch_size: voxels per axis; may be fractional (medians).
    """
    dim = len(spacing)
    current_spacing, size = list(spacing), list(patch_size)
    num_pool, kernel = [0] * dim, [1] * dim
    strides, kernels = [(1,) * dim], []
    while True:
        poolable = [i for i in range(dim) if size[i] >= 2 * min_feature_map_size]
        finest = min((current_spacing[i] for i in poolable), default=0.0)
        poolable = [i for i in poolable if current_spacing[i] / finest < 2 and num_pool[i] < max_num_pool]
        if not poolable or (len(poolable) == 1 and size[poolable[0]] < 3 * min_feature_map_size):
            break
        smallest = min(current_spacing)
        kernel = [3 if k == 3 or s / smallest < 2 else 1 for k, s in zip(kernel, current_spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if i in poolable else 1 for i in range(dim)))
        for i in poolable:
            num_pool[i] += 1
            current_spacing[i] *= 2
            size[i] = math.ceil(size[i] / 2)
    kernels.append((3,) * dim)
    divisor = tuple(2**n for n in num_pool)
    return NetworkTopology(tuple(num_pool), tuple(strides), tuple(kernels), pad_shape(patch_size, divisor), divisor)


def pad_shape(shape: Sequence[float], divisor: Sequence[int]) -> tuple[int, ...]:
    """The smallest shape not below `shape` that is divisible by `divisor`, per axis."""
    return tuple(math.ceil(n / d) * d for n, d in zip(shape, divisor, strict=True))


def get_shape_must_be_divisible_by(net_numpool_per_axis: Sequence[int]) -> list[int]:
    """Divisors of a patch that is pooled so often per axis (upstream's name)."""
    return [2**n for n in net_numpool_per_axis]


def repeat_last(values: Sequence[int], number: int) -> list[int]:
    """The first `number` values; the last one is repeated for networks deeper than that."""
    return [values[min(i, len(values) - 1)] for i in range(number)]


def get_pool_and_conv_props(
    spacing: Sequence[float], patch_size: Sequence[float], min_feature_map_size: int, max_numpool: int
) -> NetworkTopology:
    """`determine_topology` under upstream's name and with its order of results."""
    return determine_topology(spacing, patch_size, min_feature_map_size, max_numpool)


def estimate_feature_maps(patch_size: Sequence[int], num_labels: int, arch_kwargs: Mapping[str, Any]) -> int:
    """Number of values in all feature maps of one patch: the measure of GPU memory in planning.

    Counts what nnU-Net v2 2.8.1 counts on an instantiated network: the outputs of convolutions and residual branches of
    the encoder, of transposed convolutions, decoder convolutions and the output layer at full resolution.

    Args:
        patch_size: voxels per axis.
        num_labels: keys of `labels` in dataset.json (background, ignore and regions alike).
        arch_kwargs: as in plans: features_per_stage, strides, n_conv_per_stage or n_blocks_per_stage,
            n_conv_per_stage_decoder.
    """
    features: Sequence[int] = arch_kwargs["features_per_stage"]
    voxels = []
    size = list(patch_size)
    for stride in arch_kwargs["strides"]:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    if "n_blocks_per_stage" in arch_kwargs:
        encoder = _residual_encoder(math.prod(patch_size), features, voxels, arch_kwargs)
    else:
        encoder = sum(n * f * v for n, f, v in zip(arch_kwargs["n_conv_per_stage"], features, voxels, strict=True))
    decoder = sum(
        (n + 1) * f * v
        for n, f, v in zip(arch_kwargs["n_conv_per_stage_decoder"], features[:-1], voxels[:-1], strict=True)
    )
    output = num_labels * voxels[0] if len(voxels) > 1 else 0
    return int(encoder + decoder + output)


def _residual_encoder(
    patch_voxels: int, features: Sequence[int], voxels: Sequence[int], arch_kwargs: Mapping[str, Any]
) -> int:
    total = features[0] * patch_voxels  # stem
    previous = features[0]
    for blocks, width, size, stride in zip(
        arch_kwargs["n_blocks_per_stage"], features, voxels, arch_kwargs["strides"], strict=True
    ):
        projected = width != previous or max(stride) > 1  # the skip path has its own convolution
        total += width * size * (2 * blocks + projected)
        previous = width
    return total
