"""The previous stage as input: one-hot channels and their corruption (spec 02, 4.6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_lite.training.data_augmentation.cascade_transforms import (
    _OPERATIONS,
    ApplyRandomBinaryOperatorTransform,
    MoveSegAsOneHotToDataTransform,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
    structuring_element,
)
from nnunet_lite.training.data_augmentation.transforms import Batch, SampleShape

Nothing = torch.zeros(1)


@pytest.mark.parametrize(
    ("radius", "axes", "edge", "count"),
    [(1, 3, 3, 7), (2, 3, 5, 33), (2.5, 3, 6, 56), (3.7, 3, 8, 160), (7.9, 3, 16, 1736)]
    + [(1.4, 2, 4, 4), (2.5, 2, 6, 16), (3.7, 2, 9, 41), (7.9, 2, 17, 191)],
)
def test_structuring_elements(radius: float, axes: int, edge: int, count: int) -> None:
    element = structuring_element(radius, axes)
    assert element.shape == (edge,) * axes and element.sum() == count


def test_one_hot() -> None:
    segmentation = torch.tensor([[[0, 0, 0], [1, 2, -1]]])
    batch = MoveSegAsOneHotToDataTransform(1, [1, 2]).apply(Batch(torch.ones(1, 1, 3), segmentation), [()])
    assert batch.image[0].tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 0]]
    assert batch.labels().tolist() == [[[0, 0, 0]]]


def operate(image: torch.Tensor, operator: str, radius: float) -> torch.Tensor:
    transform = ApplyRandomBinaryOperatorTransform([0, 1])
    return transform.apply(Batch(image[None].clone(), Nothing), [[(0, operator, radius)]]).image[0]


def test_gained_voxels_are_taken_from_the_others() -> None:
    image = torch.zeros(2, 7, 7)
    image[0, 3, 3] = 1
    image[1, 3, 4:] = 1
    result = operate(image, "dilation", 1)
    assert result[0].sum() == 5 and result[0, 3].tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert result[1, 3].tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_the_border_does_not_erode() -> None:
    full = torch.stack([torch.ones(5, 5), torch.zeros(5, 5)])
    assert operate(full, "erosion", 1)[0].sum() == 25
    full[0, 2, 2] = 0
    assert operate(full, "erosion", 1)[0].sum() == 20
    assert operate(full, "closing", 1)[0].sum() == 25
    assert operate(1 - full, "opening", 1)[0].sum() == 0


@pytest.mark.parametrize(
    ("operator", "radius", "count", "first", "last"),
    [
        ("dilation", 2.5, 992, 2, 11),
        ("dilation", 2, 1023, 2, 12),
        ("erosion", 2.5, 64, 5, 8),
        ("erosion", 3.7, 8, 6, 7),
        ("closing", 3.7, 343, 3, 9),
        ("opening", 2.5, 335, 3, 9),
        ("opening", 2, 179, 4, 10),
    ],
)
def test_operators_on_a_cube_are_upstreams(operator: str, radius: float, count: int, first: int, last: int) -> None:
    image = torch.zeros(2, 15, 15, 15)
    image[0, 4:11, 4:11, 4:11] = 1
    voxels = operate(image, operator, radius)[0].nonzero()
    assert (len(voxels), int(voxels.min()), int(voxels.max())) == (count, first, last)


@pytest.mark.parametrize(
    ("operator", "radius", "voxels"),
    [
        ("dilation", 1.1, {(11, 12), (12, 11), (12, 12)}),
        ("closing", 1.53, {(13, 13)}),
        ("erosion", 1.1, set()),
        ("opening", 1.1, set()),
        ("closing", 1.4, {(11, 11)}),
    ],
)
def test_disks_off_their_centre_are_upstreams(operator: str, radius: float, voxels: set[tuple[int, ...]]) -> None:
    image = torch.zeros(2, 25, 25)
    image[0, 12, 12] = 1
    assert {tuple(voxel) for voxel in operate(image, operator, radius)[0].nonzero().tolist()} == voxels


@pytest.mark.parametrize("size", [(40, 44), (18, 20, 22)])
def test_working_on_a_box_is_working_on_everything(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    for _ in range(8):
        image = torch.zeros(2, *size)
        low = [int(rng.integers(0, n - 1)) for n in size]
        box = tuple(slice(start, start + int(rng.integers(1, 9))) for start in low)
        image[0][box] = (torch.rand(image[0][box].shape, generator=generator) < 0.8).float()
        radius = float(rng.uniform(1, 8))
        element = torch.from_numpy(structuring_element(radius, len(size)))
        for name, whole in _OPERATIONS.items():
            expected = whole(image[0] > 0, element)
            assert torch.equal(operate(image, name, radius)[0] > 0, expected)


def test_which_operators_are_drawn() -> None:
    transform = ApplyRandomBinaryOperatorTransform([-2, -1])
    rng = np.random.default_rng(0)
    drawn = [transform.make_params(rng, SampleShape(4, (8, 8))) or [] for _ in range(1000)]
    flat = [operation for one in drawn for operation in one]
    assert len(flat) == pytest.approx(1000, abs=80)
    assert {operation.channel for operation in flat} == {-1, -2}
    for operator in ("dilation", "erosion", "closing", "opening"):
        assert sum(operation.operator == operator for operation in flat) == pytest.approx(250, abs=50)
    assert all(1 <= operation.radius <= 8 for operation in flat)


def test_only_small_components_go() -> None:
    image = torch.zeros(1, 1, 10, 10)
    image[0, 0, :4, :5] = 1  # 20 % of the patch: too large
    image[0, 0, 6, 6] = image[0, 0, 7, 7] = 1  # one component across a corner
    image[0, 0, 9, 0] = 1
    transform = RemoveRandomConnectedComponentFromOneHotEncodingTransform([0])
    sums = {float(transform.apply(Batch(image.clone(), Nothing), [[(0, p)]]).image.sum()) for p in (0.1, 0.9)}
    assert sums == {21.0, 22.0}
    large = image.clone()
    large[0, 0, 5:] = 0
    assert torch.equal(transform.apply(Batch(large.clone(), Nothing), [[(0, 0.5)]]).image, large)
