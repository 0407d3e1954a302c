"""The patch-size search: initial patches, the order of shrinking, and its limits."""

from __future__ import annotations

import pytest

from nnunet_lite.exceptions import PlansError
from nnunet_lite.experiment_planning.network_topology import NetworkTopology
from nnunet_lite.experiment_planning.patch_size_search import can_be_pooled, find_patch_size, initial_patch_size


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [
        ((1, 1, 1), [256, 256, 256]),
        ((5, 0.78, 0.78), [74, 476, 476]),
        ((3.6, 0.625, 0.625), [80, 459, 459]),
        ((1, 0.767, 0.767), [215, 280, 280]),
        ((10, 1.5, 1.5), [72, 482, 482]),
        ((1, 1), [2048, 2048]),
        ((0.5, 1), [2896, 1448]),
    ],
)
def test_initial_patch(spacing: tuple[float, ...], patch: list[int]) -> None:
    assert initial_patch_size(spacing) == patch


def test_initial_patch_is_not_larger_than_a_fractional_median() -> None:
    assert initial_patch_size((1, 1, 1), (20.5, 300, 100)) == [20.5, 256, 100]


def test_spacing_must_be_positive() -> None:
    with pytest.raises(PlansError, match="positive"):
        initial_patch_size((0, 1, 1))


@pytest.mark.parametrize(
    ("spacing", "median", "last", "path"),
    [
        (
            (1, 1, 1),
            (138, 170, 138),
            (128, 128, 128),
            [(160, 192, 160), (160, 192, 128), (128, 192, 128), (128, 160, 128), (128, 128, 128)],
        ),
        (
            (5, 0.78, 0.78),
            (100, 512, 512),
            (40, 224, 192),
            [(80, 512, 512), (80, 512, 448), (80, 448, 448), (80, 448, 384), (80, 384, 384), (64, 384, 384),
             (64, 384, 320), (64, 320, 320), (56, 320, 320), (56, 320, 256), (56, 256, 256), (48, 256, 256),
             (48, 256, 224), (48, 224, 224), (40, 224, 224), (40, 224, 192)],
        ),
    ],
)  # fmt: skip
def test_patches_tried(
    spacing: tuple[float, ...], median: tuple[float, ...], last: tuple[int, ...], path: list[tuple[int, ...]]
) -> None:
    tried: list[tuple[int, ...]] = []

    def fits(topology: NetworkTopology) -> bool:
        tried.append(topology.patch_size)
        return topology.patch_size == last

    find_patch_size(spacing, median, fits)
    assert tried == path


@pytest.mark.parametrize(
    ("spacing", "median"),
    [((1, 1, 1), (300, 300, 300)), ((5, 1, 1), (20, 320, 320)), ((1, 1), (40, 40)), ((3, 1), (12, 9))],
)
def test_shrinking_stops_at_a_patch_that_still_works(spacing: tuple[float, ...], median: tuple[float, ...]) -> None:
    topology = find_patch_size(spacing, median, lambda _: False)
    assert min(topology.patch_size) >= 1
    assert topology.n_stages >= 2


@pytest.mark.parametrize(
    ("spacing", "median", "patch"),
    [
        ((1, 1), (7, 7), (8, 8)),
        ((1, 1), (11, 7), (12, 8)),
        ((1, 1, 1), (7, 7, 7), (8, 8, 7)),
        ((3, 1), (6, 6), (6, 12)),
        ((1, 1, 1), (1, 7, 7), (1, 8, 8)),
    ],
)
def test_a_patch_that_cannot_be_pooled_is_enlarged(
    spacing: tuple[float, ...], median: tuple[float, ...], patch: tuple[int, ...]
) -> None:
    assert not can_be_pooled(spacing, median)
    topology = find_patch_size(spacing, median, lambda _: True)
    assert topology.patch_size == patch
    assert topology.n_stages == 2
