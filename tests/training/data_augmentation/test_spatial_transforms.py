"""Golden numbers of spec 02, 4.4, and agreement of reading a box with reading everything."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch

from nnunet_lite.training.data_augmentation.spatial_transforms import SpatialTransform, rotation_matrix
from nnunet_lite.training.data_augmentation.transforms import Batch, SampleShape, Source


def warp(image: torch.Tensor, labels: torch.Tensor, matrix: np.ndarray | None, final: list[int]) -> Batch:
    return SpatialTransform(final).apply(Batch(image[None, None], labels[None, None]), [matrix])


def test_matrices() -> None:
    expected = [[1.029923, -0.302605, 0.240186], [0.318592, 1.052068, -0.040653], [-0.218536, 0.107628, 1.072687]]
    np.testing.assert_allclose(rotation_matrix([0.1, 0.2, 0.3]) * 1.1, expected, atol=1e-6)
    flat = [[1.146404, -0.354624], [0.354624, 1.146404]]
    np.testing.assert_allclose(rotation_matrix([9, 0.3]) * 1.2, flat, atol=1e-6)


@pytest.mark.parametrize(
    ("seed", "rows"),
    [
        (2, np.eye(3) * 0.994257),
        (10, np.eye(3) * 1.048955),
        (7, [[0.887264, 0.064335, 0.456754], [0.034173, 0.978336, -0.204182], [-0.459995, 0.196772, 0.865844]]),
        *[(seed, None) for seed in (0, 1, 3, 4, 5, 6, 8)],
    ],
)
def test_draws_in_upstreams_order(seed: int, rows: object) -> None:
    transform = SpatialTransform([8, 8, 8], rotation=(-0.5, 0.5), scaling=(0.7, 1.4))
    matrix = transform.make_params(np.random.RandomState(seed), SampleShape(1, (12, 12, 12)))
    if rows is None:
        assert matrix is None
    else:
        np.testing.assert_allclose(matrix, rows, atol=1e-6)


def test_directions_2d() -> None:
    image = torch.randn(5, 5)
    result = warp(image, image.new_zeros(5, 5, dtype=torch.int16), rotation_matrix([0, pi / 2]), [5, 5]).image[0, 0]
    torch.testing.assert_close(result, image.flip(0).T, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("axis", "source", "target"),
    [
        (0, (2, 4, 2), (2, 2, 0)),
        (0, (2, 2, 4), (2, 4, 2)),
        (1, (4, 2, 2), (2, 2, 4)),
        (1, (2, 2, 4), (0, 2, 2)),
        (2, (2, 4, 2), (4, 2, 2)),
        (2, (4, 2, 2), (2, 0, 2)),
    ],
)
def test_directions_3d(axis: int, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    image = torch.zeros(5, 5, 5)
    image[source] = 1
    angles = [0.0, 0.0, 0.0]
    angles[axis] = pi / 2
    result = warp(image, image.to(torch.int16), rotation_matrix(angles), [5, 5, 5])
    assert tuple(int(i) for i in np.unravel_index(int(result.image.argmax()), (5, 5, 5))) == target
    assert tuple(int(i) for i in result.labels()[0, 0].nonzero()[0]) == target


def test_labels_compete_with_the_outside() -> None:
    ramp = torch.arange(16, dtype=torch.int16).view(4, 4)
    zoomed_out = warp(ramp.float(), ramp, np.eye(2) * 1.2, [4, 4]).labels()[0, 0]
    assert zoomed_out.tolist() == [[-1, 1, 2, -1], [4, 5, 6, 7], [8, 9, 10, 11], [-1, 13, 14, -1]]
    zoomed_in = warp(ramp.float(), ramp, np.eye(2) * 0.5, [4, 4]).labels()[0, 0]
    assert zoomed_in.tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [9, 9, 10, 10], [9, 9, 10, 10]]


def test_pure_crop() -> None:
    image, labels = torch.arange(7.0), torch.arange(7, dtype=torch.int16)
    result = warp(image[:, None], labels[:, None], None, [4, 1])
    assert result.image.flatten().tolist() == [1, 2, 3, 4]
    padded = warp(image[:3, None], labels[:3, None], None, [4, 1])
    assert padded.image.flatten().tolist() == [0, 0, 1, 2]
    assert padded.labels().flatten().tolist() == [-1, 0, 1, 2]


def test_images_as_grid_sample() -> None:
    image = torch.randn(2, 9, 14, 11)
    matrix = rotation_matrix([0.4, -0.3, 0.2]) * 1.3
    transform = SpatialTransform([8, 10, 9])
    labels = torch.zeros(1, 9, 14, 11, dtype=torch.int16)
    result = transform.apply(Batch(image[None], labels[None]), [matrix]).image
    axes = [torch.arange(n) - (n - 1) / 2 for n in (8, 10, 9)]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    positions = offsets @ torch.from_numpy(matrix).float().T / (torch.tensor([9, 14, 11]) / 2)
    expected = torch.nn.functional.grid_sample(image[None], positions.flip(-1)[None], align_corners=False)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dummy_2d", [False, True])
def test_reading_a_box_is_enough(dummy_2d: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    patch, final = ((6, 24, 20), (6, 12, 10)) if dummy_2d else ((20, 24, 22), (10, 12, 9))
    image = torch.randn(2, *patch, generator=generator)
    labels = torch.randint(-1, 4, (2, *patch), generator=generator, dtype=torch.int16)
    transform = SpatialTransform(final, p_rotation=0.7, p_scaling=0.7, rotation=(-pi, pi), dummy_2d=dummy_2d)
    rng = np.random.default_rng(0)
    smaller = 0
    for _ in range(12):
        params = transform.make_params(rng, SampleShape(2, patch))
        box = transform.source_box(params, patch)
        inside = tuple(slice(s, s + n) for s, n in zip(box.start, box.size, strict=True))
        source = Source(image[(slice(None), *inside)], labels[(slice(None), *inside)], box.start, patch)
        part = transform.apply_to_sources([source], [params])
        whole = transform.apply(Batch(image[None], labels[None]), [params])
        assert torch.equal(part.image, whole.image)
        assert torch.equal(part.labels(), whole.labels())
        smaller += box.size != patch
    assert smaller > 3


def test_dummy_2d_leaves_slices_alone() -> None:
    image = torch.randn(1, 3, 8, 8)
    labels = torch.zeros(1, 3, 8, 8, dtype=torch.int16)
    transform = SpatialTransform([3, 8, 8], dummy_2d=True)
    matrix = rotation_matrix([0, 0.5])
    result = transform.apply(Batch(image[None], labels[None]), [matrix]).image[0, 0, 1]
    torch.testing.assert_close(result, warp(image[0, 1], labels[0, 1], matrix, [8, 8]).image[0, 0])


def test_nearest_labels() -> None:
    labels = torch.arange(16, dtype=torch.int16).view(1, 1, 4, 4)
    transform = SpatialTransform([4, 4], mode_seg="nearest")
    result = transform.apply(Batch(labels.float(), labels), [np.eye(2) * 1.4]).labels()
    assert result[0, 0].tolist() == [[-1, -1, -1, -1], [-1, 5, 6, -1], [-1, 9, 10, -1], [-1, -1, -1, -1]]
