"""Golden facts of nnU-Net v2 2.8.1: strides, kernels, padding and feature-map counts."""

from __future__ import annotations

import pytest

from nnunet_lite.experiment_planning.network_topology import (
    determine_topology,
    estimate_feature_maps,
    get_pool_and_conv_props,
    get_shape_must_be_divisible_by,
    pad_shape,
)


def digits(codes: str) -> tuple[tuple[int, ...], ...]:
    """ "111,122" -> ((1, 1, 1), (1, 2, 2)); "133,4x333" repeats."""
    entries: list[tuple[int, ...]] = []
    for code in codes.split(","):
        times, _, values = code.rpartition("x")
        entries.extend([tuple(int(c) for c in values)] * int(times or 1))
    return tuple(entries)


TOPOLOGIES = [
    ((1, 1, 1), (128,) * 3, (5, 5, 5), "111,5x222", "6x333", (128,) * 3),
    ((1, 1, 1), (224, 224, 160), (5, 5, 5), "111,5x222", "6x333", (224, 224, 160)),
    ((1, 1, 1), (40, 56, 40), (3, 3, 3), "111,3x222", "4x333", (40, 56, 40)),
    ((2, 1, 1), (64,) * 3, (3, 4, 4), "111,122,3x222", "133,4x333", (64,) * 3),
    ((1.9, 1, 1), (64,) * 3, (4, 4, 4), "111,4x222", "5x333", (64,) * 3),
    ((4, 1, 1), (64,) * 3, (3, 4, 4), "111,2x122,2x222,211", "2x133,4x333", (64,) * 3),
    ((8, 1, 1), (32, 256, 256), (3, 6, 6), "111,3x122,3x222", "3x133,4x333", (32, 256, 256)),
    ((1, 1), (512, 512), (7, 7), "11,7x22", "8x33", (512, 512)),
    ((1, 1), (68, 80), (4, 4), "11,4x22", "5x33", (80, 80)),
    ((1, 1), (11, 11), (1, 1), "11,22", "2x33", (12, 12)),
    ((1, 1), (12, 8), (1, 1), "11,22", "2x33", (12, 8)),
    ((1, 1), (12, 7), (1, 0), "11,21", "2x33", (12, 7)),
    ((1, 1), (11, 7), (0, 0), "11", "33", (11, 7)),
    ((1, 1, 1), (7,) * 3, (0, 0, 0), "111", "333", (7,) * 3),
    ((1, 1, 1), (8,) * 3, (1, 1, 1), "111,222", "2x333", (8,) * 3),
    ((1, 1, 1), (12,) * 3, (1, 1, 1), "111,222", "2x333", (12,) * 3),
    ((1, 1, 1), (8, 12, 12), (1, 1, 1), "111,222", "2x333", (8, 12, 12)),
    ((1, 1, 1), (8, 8, 16), (1, 1, 1), "111,222", "2x333", (8, 8, 16)),
    ((1, 1, 1), (4, 16, 16), (0, 2, 2), "111,122,122", "3x333", (4, 16, 16)),
    ((5, 1.53125, 1.53125), (13.5, 237, 208), (1, 5, 5), "111,122,222,3x122", "133,5x333", (14, 256, 224)),
]


@pytest.mark.parametrize(("spacing", "size", "pools", "strides", "kernels", "padded"), TOPOLOGIES)
def test_topology(
    spacing: tuple[float, ...],
    size: tuple[float, ...],
    pools: tuple[int, ...],
    strides: str,
    kernels: str,
    padded: tuple[int, ...],
) -> None:
    topology = determine_topology(spacing, size)
    assert topology.num_pool_per_axis == pools
    assert topology.strides == digits(strides)
    assert topology.kernel_sizes == digits(kernels)
    assert topology.patch_size == padded
    assert topology.divisor == tuple(2**n for n in pools)


def test_limits_of_pooling_are_respected_and_inputs_are_not_modified() -> None:
    spacing, size = [1.0, 1.0], [64, 64]
    pools, strides, kernels, patch, divisor = get_pool_and_conv_props(spacing, size, 4, 2)
    assert (pools, patch, divisor) == ((2, 2), (64, 64), (4, 4))
    assert len(strides) == len(kernels) == 3
    assert (spacing, size) == ([1.0, 1.0], [64, 64])


def test_padding_of_fractional_medians() -> None:
    assert pad_shape((13.5, 20.5, 5), (2, 1, 4)) == (14, 21, 8)


ESTIMATES = [
    ((64,) * 3, "111,4x222", 3, 56_532_992, 69_603_328),
    ((96,) * 3, "111,4x222", 3, 190_798_848, 234_911_232),
    ((128,) * 3, "111,5x222", 3, 452_796_416, 557_420_544),
    ((160,) * 3, "111,5x222", 3, 884_368_000, 1_088_712_000),
    ((192,) * 3, "111,5x222", 3, 1_528_187_904, 1_881_294_336),
    ((40, 56, 40), "111,3x222", 2, 19_084_800, 23_520_000),
    ((40, 56, 40), "111,3x222", 3, 19_174_400, 23_609_600),
    ((20, 320, 256), "111,122,122,222,222,122,122", 3, 483_315_200, 706_336_000),
    ((64,) * 3, "111,122,122,222,222,211", 4, 77_561_856, 113_434_624),
    ((256, 256), "11,6x22", 3, 20_692_992, 32_382_976),
    ((320, 320), "11,6x22", 3, 32_332_800, 50_598_400),
    ((512, 512), "11,7x22", 3, 82_886_656, 129_703_936),
    ((7,) * 3, "111", 3, 21_952, 32_928),
]


@pytest.mark.parametrize(("patch", "strides", "labels", "plain", "residual"), ESTIMATES)
def test_feature_map_estimates(patch: tuple[int, ...], strides: str, labels: int, plain: int, residual: int) -> None:
    stages = len(digits(strides))
    common = {
        "features_per_stage": [min(320 if len(patch) == 3 else 512, 32 * 2**i) for i in range(stages)],
        "strides": digits(strides),
    }
    plain_kwargs = {**common, "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    residual_kwargs = {
        **common,
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6, 6][:stages],
        "n_conv_per_stage_decoder": [1] * (stages - 1),
    }
    assert estimate_feature_maps(patch, labels, plain_kwargs) == plain
    assert estimate_feature_maps(patch, labels, residual_kwargs) == residual


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ((160, 192, 160), 1_066_156_800),
        ((160, 192, 128), 852_925_440),
        ((128, 192, 128), 682_340_352),
        ((128, 160, 128), 568_616_960),
        ((128, 128, 128), 454_893_568),
    ],
)
def test_estimates_on_the_way_to_the_brain_tumour_patch(patch: tuple[int, ...], expected: int) -> None:
    """Four labels, counted as keys of dataset.json: background and three regions."""
    kwargs = {
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "strides": digits("111,5x222"),
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
    }
    assert estimate_feature_maps(patch, 4, kwargs) == expected


def test_divisors_under_upstreams_name() -> None:
    assert list(get_shape_must_be_divisible_by([3, 4, 4])) == [8, 16, 16]
