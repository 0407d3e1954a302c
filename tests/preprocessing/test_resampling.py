"""The resampler against scikit-image and the numbers of spec 01, 9.2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.transform import resize

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.extensions import find_class
from nnunet_lite.preprocessing import resampling
from nnunet_lite.preprocessing.resampling import resample_data_or_seg_to_shape, resample_torch_fornnunet

ISO = (1, 1, 1)
RAMP = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
QUADRANTS = np.array([[1, 1, 3, 3]] * 2 + [[-1, -1, 2, 2]] * 2, np.int16)[None, None]


def _upstream_like(volume: NDArray[np.float32], shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    return np.asarray(resize(volume.astype(np.float64), shape, order=order, mode="edge", anti_aliasing=False))


def test_linear_values() -> None:
    out = resample_data_or_seg_to_shape(RAMP, (3, 5, 6), ISO, ISO, order=1)
    np.testing.assert_allclose(out[0, 0, 0], [0, 0.5, 1.1667, 1.8333, 2.5, 3], atol=1e-4)
    np.testing.assert_allclose(out[0, 0, 1], [1.6, 2.1, 2.7667, 3.4333, 4.1, 4.6], atol=1e-4)
    np.testing.assert_allclose(out[0, -1, -1], [20, 20.5, 21.1667, 21.8333, 22.5, 23], atol=1e-4)
    np.testing.assert_allclose(resample_torch_fornnunet(RAMP, (3, 5, 6), ISO, ISO), out, atol=1e-5)


def test_cubic_values_are_clipped_to_the_channel() -> None:
    out = resample_data_or_seg_to_shape(RAMP, (3, 5, 6), ISO, ISO)
    np.testing.assert_allclose(out[0, 0, 0], [0, 0, 0, 0.643, 1.3923, 1.8809], atol=1e-4)
    np.testing.assert_allclose(out[0, -1, -1], [21.1191, 21.6077, 22.357, 23, 23, 23], atol=1e-4)


def test_separate_axis_selects_slices_and_clips_each() -> None:
    out = resample_data_or_seg_to_shape(RAMP, (3, 5, 6), (5, 1, 1), (3, 1, 1), force_separate_z=None)
    np.testing.assert_allclose(out[0, 0, 0], [0, 0.1729, 0.9222, 1.5707, 2.32, 2.8086], atol=1e-4)
    np.testing.assert_array_equal(out[0, 1], out[0, 2])
    assert out[0, 0, -1, -1] == 11 and out[0, 1, 0, 0] == 12


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(31, 37, 77), (12, 60, 40), (24, 20, 90), (70, 90, 80)])
def test_volume_equals_skimage(order: int, shape: tuple[int, int, int]) -> None:
    data = np.random.default_rng(order).normal(size=(2, 24, 50, 40)).astype(np.float32)
    out = resample_data_or_seg_to_shape(data, shape, ISO, ISO, order=order)
    assert out.dtype == np.float32 and out.shape == (2, *shape)
    for channel, expected in zip(out, data, strict=True):
        np.testing.assert_allclose(channel, _upstream_like(expected, shape, order), atol=5e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_may_be_the_separate_one(axis: int) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    data = np.random.default_rng(axis).normal(size=(1, 9, 10, 11)).astype(np.float32)
    out = resample_data_or_seg_to_shape(data, (7, 13, 8), spacing, ISO, force_separate_z=None)
    moved, result = np.moveaxis(data[0], axis, 0), np.moveaxis(out[0], axis, 0)
    for index, plane in enumerate(result):
        source = moved[int((index + 0.5) * moved.shape[0] / result.shape[0])]
        np.testing.assert_allclose(plane, _upstream_like(source, plane.shape, 3), atol=5e-6)


def test_interpolation_across_the_separate_axis_follows_the_clipped_slices() -> None:
    data = np.random.default_rng(5).normal(size=(1, 6, 8, 9)).astype(np.float32)
    out = resample_data_or_seg_to_shape(data, (9, 12, 10), (9, 1, 1), ISO, order=3, order_z=1, force_separate_z=None)
    slices = np.stack([_upstream_like(plane, (12, 10), 3) for plane in data[0]])
    np.testing.assert_allclose(out[0], _upstream_like(slices, (9, 12, 10), 1), atol=5e-6)


def test_the_torch_variant_returns_float32() -> None:
    """Of arrays and tensors of any float type, as upstream's does."""
    for dtype in (torch.float16, torch.float64):
        tensor = torch.from_numpy(RAMP).to(dtype)
        resized = resample_torch_fornnunet(tensor, (3, 5, 6), ISO, ISO)
        assert resized.dtype == torch.float32
        array = resample_torch_fornnunet(tensor.numpy(), (3, 5, 6), ISO, ISO)
        assert array.dtype == np.float32 and np.array_equal(array, resized.numpy())
        assert resample_torch_fornnunet(tensor, RAMP.shape[1:], ISO, ISO) is tensor


def test_unchanged_shape_returns_the_input_and_types_are_kept() -> None:
    assert resample_data_or_seg_to_shape(RAMP, (2, 3, 4), ISO, (2, 2, 2)) is RAMP
    half = resample_data_or_seg_to_shape(RAMP.astype(np.float16), (3, 5, 6), ISO, ISO, order=1)
    assert half.dtype == np.float16
    tensor = resample_data_or_seg_to_shape(torch.from_numpy(RAMP), (3, 5, 6), ISO, ISO, order=1)
    assert isinstance(tensor, np.ndarray)
    double = resample_data_or_seg_to_shape(RAMP.astype(np.float64), (3, 5, 6), ISO, ISO)
    np.testing.assert_allclose(double[0], _upstream_like(RAMP[0], (3, 5, 6), 3), atol=1e-6)


def test_quadrants() -> None:
    small = resample_data_or_seg_to_shape(QUADRANTS, (1, 3, 3), ISO, ISO, is_seg=True, order=1)
    assert small[0, 0].tolist() == [[1, 3, 3], [-1, 2, 2], [-1, 2, 2]]
    for edge in (2, 6, 8):
        resized = resample_data_or_seg_to_shape(QUADRANTS, (1, edge, edge), ISO, ISO, is_seg=True, order=1)
        half = edge // 2
        expected = QUADRANTS[0, 0][[0] * half + [3] * half][:, [0] * half + [3] * half]
        np.testing.assert_array_equal(resized[0, 0], expected)
    torch_like = resample_torch_fornnunet(QUADRANTS, (1, 3, 3), ISO, ISO, is_seg=True)
    assert torch_like[0, 0].tolist() == [[1, 1, 3], [-1, -1, 2], [-1, -1, 2]]
    lean = resample_torch_fornnunet(QUADRANTS, (1, 3, 3), ISO, ISO, is_seg=True, memefficient_seg_resampling=True)
    assert lean[0, 0].tolist() == [[1, 0, 3], [0, 0, 0], [-1, 0, 2]]


def _by_indicators(labels: NDArray[np.int16], shape: tuple[int, ...], order: int) -> NDArray[np.int16]:
    """The definition: one resized indicator per label, the largest wins, the nearest label on ties."""
    values = np.unique(labels)
    scores = np.stack([_upstream_like(labels == value, shape, order) for value in values])
    tied = scores == scores.max(axis=0)
    nearest = resize(labels.astype(np.float64), shape, order=0, mode="edge", anti_aliasing=False)
    first = values[tied.argmax(axis=0)]
    is_nearest = (tied & (values.reshape(-1, *[1] * labels.ndim) == nearest)).any(axis=0)
    return np.where(is_nearest, nearest, first).astype(labels.dtype)


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((11, 11, 11), 0),
        ((11, 11, 11), 1),
        ((5, 13, 7), 1),
        ((16, 4, 8), 1),
        ((8, 13, 8), 1),
        ((8, 8, 5), 1),
        ((11, 11, 11), 3),
        ((5, 14, 7), 3),
    ],
)
def test_labels_follow_the_definition_in_three_dimensions(shape: tuple[int, int, int], order: int) -> None:
    labels = np.random.default_rng(3).integers(-1, 4, size=(1, 8, 8, 8)).astype(np.int16)
    out = resample_data_or_seg_to_shape(labels, shape, ISO, ISO, is_seg=True, order=order)
    assert out.dtype == np.int16
    np.testing.assert_array_equal(out[0], _by_indicators(labels[0], shape, order))


def test_labels_with_a_separate_axis() -> None:
    labels = np.random.default_rng(4).integers(0, 25, size=(1, 5, 9, 12)).astype(np.int16)
    out = resample_data_or_seg_to_shape(
        labels, (10, 12, 7), (8, 1, 1), ISO, is_seg=True, order=1, force_separate_z=None
    )
    for index, plane in enumerate(out[0]):
        np.testing.assert_array_equal(plane, _by_indicators(labels[0, index // 2], (12, 7), 1))


def test_torch_variant_keeps_tensors_and_label_type() -> None:
    tensor = torch.from_numpy(RAMP)
    resized = resample_torch_fornnunet(tensor, (3, 5, 6), (5, 1, 1), ISO)
    assert isinstance(resized, torch.Tensor) and resized.dtype == torch.float32
    np.testing.assert_allclose(resized[0, :, 0, 0], [0, 12, 12])
    np.testing.assert_allclose(resized[0, 2, 0].numpy(), [12, 12.5, 13.1667, 13.8333, 14.5, 15], atol=1e-4)
    labels = torch.from_numpy(QUADRANTS.astype(np.int64))
    assert resample_torch_fornnunet(labels, (1, 6, 6), ISO, ISO, is_seg=True).dtype == torch.int8
    with pytest.raises(ArgumentError, match="cubic"):
        resample_torch_fornnunet(tensor, (3, 5, 6), ISO, ISO, mode="cubic")


@pytest.mark.parametrize("shape", [(3, 5, 6), (5, 2, 9)])
def test_torch_variant_equals_torch(shape: tuple[int, int, int]) -> None:
    data = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32))
    expected = torch.nn.functional.interpolate(data[None], shape, mode="trilinear", align_corners=False)[0]
    np.testing.assert_allclose(resample_torch_fornnunet(data, shape, ISO, ISO), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"])
def test_functions_named_in_plans_are_found(name: str) -> None:
    function = find_class("resampling", name)
    kwargs = {} if name == "no_resampling_hack" else {"is_seg": False, "force_separate_z": None}
    assert function(RAMP, (2, 3, 4), ISO, ISO, **kwargs) is RAMP


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("new_shape", [(2, 170, 90), (2, 80, 130), (2, 100, 130), (2, 150, 120)])
@pytest.mark.parametrize("thick", [1.0, 6.0])
def test_large_slices_are_resized_block_by_block(
    order: int, new_shape: tuple[int, int, int], thick: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(4).normal(size=(1, 2, 120, 110)).astype(np.float32)[:, :, 20:]
    arguments = (new_shape, (thick, 1, 1), (thick, 1, 1), False, order, 0, None)
    expected = resample_data_or_seg_to_shape(data, *arguments)
    monkeypatch.setattr(resampling, "_LARGE_SLICE", 1000)
    monkeypatch.setattr(resampling, "_resize_slice", None)  # not called
    np.testing.assert_allclose(resample_data_or_seg_to_shape(data, *arguments), expected, atol=2e-6)
