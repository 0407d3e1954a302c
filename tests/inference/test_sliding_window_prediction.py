"""Tiles, weights and sums against recorded values of nnU-Net v2 2.8.1 (spec 03, 11.1-11.4)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import ArgumentError, NumericalError
from nnunet_lite.inference.logit_prediction import PredictionSettings, predict_logits
from nnunet_lite.inference.sliding_window_prediction import (
    bounding_scale,
    compute_gaussian,
    compute_steps_for_sliding_window,
    pad_to_tile,
    sliding_windows,
)

STEPS = """
110 64 .5: 0 23 46 | 64 64 .5: 0 | 65 64 .5: 0 1 | 100 64 .5: 0 18 36 | 128 64 .5: 0 32 64 | 129 64 .5: 0 22 43 65
97 48 .5: 0 16 33 49 | 200 160 .5: 0 40 | 300 96 .5: 0 41 82 122 163 204 | 512 160 .5: 0 70 141 211 282 352
100 40 .5: 0 20 40 60 | 101 40 .5: 0 15 30 46 61 | 120 40 .5: 0 20 40 60 80 | 121 40 .5: 0 16 32 49 65 81
55 32 .5: 0 12 23 | 30 7 .5: 0 3 7 10 13 16 20 23 | 12 5 .5: 0 2 5 7 | 13 8 .5: 0 2 5 | 15 8 .5: 0 4 7
11 4 .5: 0 2 4 5 7 | 7 4 .5: 0 2 3 | 10 3 .5: 0 1 3 4 6 7 | 10 4 .75: 0 3 6 | 9 4 .9: 0 2 5 | 8 4 1: 0 4
100 64 1: 0 36 | 300 128 1: 0 86 172 | 100 64 .3: 0 18 36 | 300 128 .3: 0 34 69 103 138 172 | 40 32 .25: 0 8
"""


@pytest.mark.parametrize("row", [row.strip() for row in STEPS.replace("\n", "|").split("|") if row.strip()])
def test_steps(row):
    given, positions = row.split(":")
    image, patch, step = given.split()
    expected = [[int(position) for position in positions.split()]]
    assert compute_steps_for_sliding_window((int(image),), (int(patch),), float(step)) == expected


@pytest.mark.parametrize("step", [0, -0.5, 1.01])
def test_step_size_must_be_a_part_of_the_patch(step):
    with pytest.raises(ArgumentError, match=str(step)):
        compute_steps_for_sliding_window((10,), (5,), step)


def test_image_smaller_than_tile_is_refused():
    with pytest.raises(ArgumentError, match="pad it"):
        compute_steps_for_sliding_window((4,), (5,), 0.5)


def test_number_and_order_of_tiles():
    assert len(sliding_windows((300, 512, 512), (96, 160, 160), 0.5)) == 216
    starts = [tuple(part.start for part in window) for window in sliding_windows((6, 4, 5), (4, 4, 4), 0.5)]
    assert starts == [(0, 0, 0), (0, 0, 1), (2, 0, 0), (2, 0, 1)]
    flat = [tuple(part.start for part in window) for window in sliding_windows((2, 5, 7), (4, 6), 0.5)]
    assert flat == [(d, y, x) for d in (0, 1) for y in (0, 1) for x in (0, 1)]
    with pytest.raises(ArgumentError):
        sliding_windows((5, 5), (4, 4, 4), 0.5)


def test_one_tile_for_an_image_smaller_than_the_patch():
    padded, _ = pad_to_tile(torch.zeros(1, 35, 51, 36), (40, 56, 40))
    assert len(sliding_windows(padded.shape[1:], (40, 56, 40), 0.5)) == 1


def test_padding():
    padded, inside = pad_to_tile(torch.ones(1, 3, 3, 2), (4, 4, 4))
    assert padded.shape == (1, 4, 4, 4) and inside == (slice(0, 3), slice(0, 3), slice(1, 3))
    assert padded.sum() == 18
    padded, inside = pad_to_tile(torch.ones(1, 3, 34, 55), (96, 64))
    assert padded.shape == (1, 3, 96, 64) and inside == (slice(0, 3), slice(31, 65), slice(4, 59))


GAUSSIANS = [  # size, scale, centre, first corner, last corner, voxels that were zero in half precision
    ((32, 32, 32), 10, 10, 5.9604645e-08, 5.9604645e-08, 135),
    ((32, 32, 32), 1, 1, 5.9604645e-08, 5.9604645e-08, 611),
    ((16, 16), 10, 10, 1.1324883e-06, 4.7862530e-05, 0),
    ((16, 16), 1, 1, 1.1920929e-07, 4.7683716e-06, 0),
    ((64, 64), 10, 10, 1.1324883e-06, 3.0398369e-06, 0),
    ((8, 8), 10, 10, 1.1324883e-06, 1.2340546e-03, 0),
    ((5, 7), 10, 10, 1.6736984e-04, 1.6736984e-04, 0),
    ((4, 4, 4), 10, 10, 1.7881393e-07, 2.4780273e-02, 1),
    ((128, 128, 128), 10, 10, 5.9604645e-08, 5.9604645e-08, 8941),
    ((20, 320, 256), 10, 10, 5.9604645e-08, 5.9604645e-08, 7557),
    ((48, 192, 192), 10, 10, 5.9604645e-08, 5.9604645e-08, 7683),
]


@pytest.mark.parametrize(("size", "scale", "centre", "first", "last", "zeros"), GAUSSIANS)
def test_gaussian(size, scale, centre, first, last, zeros):
    weights = compute_gaussian(size, value_scaling_factor=scale)
    assert weights.dtype == torch.float16 and weights.shape == size
    assert weights[tuple(n // 2 for n in size)] == centre == weights.max()
    assert weights.flatten()[0].item() == pytest.approx(first, rel=1e-6)
    assert weights.min() == weights.flatten()[0]
    assert weights.flatten()[-1].item() == pytest.approx(last, rel=1e-6)
    exact = compute_gaussian(size, value_scaling_factor=scale, dtype=torch.float64)
    assert int((exact.half() == 0).sum()) == zeros


def test_gaussian_before_rounding():
    weights = compute_gaussian((32, 32, 32), dtype=torch.float64)
    assert weights[0, 0, 0].item() == pytest.approx(3.775134544279098e-11, rel=1e-9)
    assert weights[-1, -1, -1].item() == pytest.approx(6.903999835404017e-10, rel=1e-9)
    assert weights.sum().item() == pytest.approx(1007.7668711933371, rel=1e-9)


def test_gaussian_line():
    line = compute_gaussian((16, 16), value_scaling_factor=10)[:, 8].tolist()
    expected = [0.0033550262, 0.0218811035, 0.1110839844, 0.4394531250, 1.3535156250, 3.24609375, 6.06640625, 8.828125]
    assert line == pytest.approx([*expected, 10, *expected[:0:-1]], rel=1e-6)
    assert compute_gaussian((4,), value_scaling_factor=10).tolist() == pytest.approx(
        [0.0033550262, 1.3535156250, 10, 1.3535156250], rel=1e-6
    )


@pytest.mark.parametrize("patch", [2, 4, 6, 16, 40, 128, 320])
def test_first_weight_of_any_even_patch(patch):
    assert compute_gaussian((patch,), value_scaling_factor=10)[0].item() == 0.0033550262451171875


class Counting(torch.nn.Module):
    """The k-th tile predicts k everywhere."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, tiles):
        values = torch.arange(self.calls + 1, self.calls + 1 + len(tiles)).float()
        self.calls += len(tiles)
        return values.reshape(-1, *[1] * (tiles.ndim - 1)).expand(tiles.shape).clone()


class Double(torch.nn.Module):
    """Two heads: the image and twice the image."""

    def forward(self, tiles):
        return torch.cat([tiles, 2 * tiles], 1)


class Constant(torch.nn.Module):
    """One head, the same value everywhere; weights can be put in."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value

    def forward(self, tiles):
        return torch.full_like(tiles[:, :1], self.value)


def settings(**changes):
    defaults = {
        "patch_size": (4, 4, 4),
        "tile_step_size": 0.5,
        "use_gaussian": True,
        "mirroring_axes": None,
        "heads": 1,
        "device": torch.device("cpu"),
        "sums_on_device": False,
        "autocast_dtype": None,
        "dtype_of_sums": torch.float16,
        "images_per_pass": 1,
    }
    return PredictionSettings(**{**defaults, **changes})


@pytest.mark.parametrize("per_pass", [1, 2, 16])
def test_blending(per_pass):
    def lines(length, **changes):
        logits = predict_logits(Counting(), torch.zeros(1, length, 4, 4), settings(images_per_pass=per_pass, **changes))
        return logits[0, :, 2, 2].tolist(), logits[0, :, 0, 0].tolist()

    central, corner = lines(6)
    assert central == [1, 1, 1.0009765625, 1.5009765625, 2, 2]
    assert corner == [1, 1, 1.13671875, 1.5, 2, 2]
    central, corner = lines(8)
    assert central == [1, 1, 1.0009765625, 1.5009765625, 2.001953125, 2.5, 3, 3.001953125]
    assert corner == [1, 1, 1.13671875, 1.5, 2.13671875, 2.5, 3, 3]
    assert lines(8, use_gaussian=False) == ([1, 1, 1.5, 1.5, 2.5, 2.5, 3, 3],) * 2
    assert lines(8, dtype_of_sums=torch.float32)[0] == pytest.approx(central, rel=2e-3)


def test_sums_in_float32_do_not_depend_on_tiles():
    image = torch.arange(120).reshape(1, 6, 4, 5).float()
    exact = torch.cat([image, 2 * image])
    logits = predict_logits(Double(), image, settings(heads=2, dtype_of_sums=torch.float32))
    assert logits.dtype == torch.float16 and logits.shape == (2, 6, 4, 5)
    assert torch.allclose(logits.float(), exact, rtol=6e-4)  # a unit in the last place of the result
    assert (predict_logits(Double(), image, settings(heads=2)) - exact)[0].abs().max() == 0.09375
    image = torch.arange(96).reshape(1, 6, 4, 4).float()
    assert torch.equal(
        predict_logits(Double(), image, settings(heads=2, use_gaussian=False)), torch.cat([image, 2 * image]).half()
    )


def test_image_smaller_than_the_patch_and_two_axes():
    image = torch.rand(1, 3, 3, 2)
    assert predict_logits(Double(), image, settings(heads=2)).shape == (2, 3, 3, 2)
    flat = predict_logits(Double(), image, settings(heads=2, patch_size=(4, 6), images_per_pass=5))
    assert torch.allclose(flat[:1].float(), image, atol=1e-2)


def test_two_axes_are_predicted_slice_by_slice():
    network, seen = Constant(), []
    network.register_forward_pre_hook(lambda _, tiles: seen.append(tuple(tiles[0].shape)))
    predict_logits(network, torch.rand(1, 2, 5, 7), settings(patch_size=(4, 6)))
    assert seen == [(1, 1, 4, 6)] * 8


def test_image_must_have_a_channel_axis():
    with pytest.raises(ArgumentError, match="4 axes"):
        predict_logits(Double(), torch.rand(3, 3, 3), settings())


@pytest.mark.parametrize("value", [6500.0, 7000.0, -60000.0, 65504.0, 1e6])
def test_large_logits_do_not_overflow(value):
    logits = predict_logits(Constant(value), torch.zeros(1, 6, 4, 9), settings()).float()
    assert torch.allclose(logits, torch.tensor(value).clamp(max=65504), rtol=3e-3)


def test_a_constant_that_upstreams_sums_can_hold():
    """6500 times the largest weight, 10, is just below half precision's largest number; 7000 fails upstream."""
    weights = compute_gaussian((4, 4, 4), value_scaling_factor=10)
    logits = predict_logits(Constant(6500.0), torch.zeros(1, 4, 4, 4), settings())
    assert logits[0, 2, 2, 2] == 6500
    assert torch.equal(logits[0], torch.tensor(6500.0).half() * weights / weights)


class Recorded(torch.nn.Module):
    """A random prediction for every tile, always the same ones."""

    def __init__(self, value):
        super().__init__()
        self.value = value
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, tiles):
        shape = (len(tiles), 2, *tiles.shape[2:])
        return self.value * (2 * torch.rand(shape, generator=self.generator) - 1)


SIZE = (12, 11, 9)


def _upstreams_sums(value, patch=(8, 8, 8)):
    """The arithmetic of spec 03, 2.5."""
    windows = sliding_windows(SIZE, patch, 0.5)
    network, gaussian = Recorded(value), compute_gaussian(patch, value_scaling_factor=10)
    total, count = torch.zeros((2, *SIZE), dtype=torch.float16), torch.zeros(SIZE, dtype=torch.float16)
    for window in windows:
        prediction = network(torch.zeros(1, 1, *patch))[0]
        prediction *= gaussian
        total[(slice(None), *window)] += prediction
        count[window] += gaussian
    return total / count


@pytest.mark.parametrize("value", [1.0, 10.0, 100.0, 1000.0, 5000.0])
def test_sums_have_upstreams_digits(value):
    theirs = _upstreams_sums(value)
    ours = predict_logits(Recorded(value), torch.zeros(1, *SIZE), settings(heads=2, patch_size=(8, 8, 8)))
    assert torch.isfinite(theirs).all()
    assert torch.equal(ours, theirs)


def test_sums_are_right_where_upstreams_overflow():
    assert torch.isinf(_upstreams_sums(60000.0)).any()
    chosen = settings(heads=2, patch_size=(8, 8, 8))
    half = predict_logits(Recorded(60000.0), torch.zeros(1, *SIZE), chosen).float()
    exact = predict_logits(
        Recorded(60000.0), torch.zeros(1, *SIZE), replace(chosen, dtype_of_sums=torch.float32)
    ).float()
    assert (half - exact).abs().max() <= 60000 * 2e-3


def test_scale_bounds_weights_and_changes_no_digit():
    weight = torch.tensor([6e-8, 1e-4, 0.75, 1, 10, 27, 300, 5000]).half().reshape(2, 2, 2)
    scaled = weight * bounding_scale(weight)
    assert scaled.dtype == torch.float32 and scaled.max() < 1
    assert torch.equal(scaled.half().float(), scaled)
    assert torch.equal(scaled.flatten()[:3].half(), weight.flatten()[:3])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_output_that_is_no_number_names_the_tile(value):
    class Broken(Counting):
        def forward(self, tiles):
            output = super().forward(tiles)
            output[output == 2] = value
            return output

    with pytest.raises(NumericalError, match="2:6, 0:4, 0:4"):
        predict_logits(Broken(), torch.zeros(1, 6, 4, 4), settings())


@pytest.mark.parametrize("per_pass", [1, 2])
@pytest.mark.parametrize("broken", [False, True])
def test_a_tile_is_repeated_in_float32_before_it_fails(per_pass, broken, caplog):
    class Overflowing(torch.nn.Module):
        def forward(self, tiles):
            output = tiles[:, :1] + 1
            if torch.is_autocast_enabled("cpu") or broken:
                output[tiles[:, :1] > 4] = math.inf
            return output

    image = torch.zeros(1, 8, 4, 4)
    image[0, 6:] = 5
    chosen = settings(autocast_dtype=torch.bfloat16, images_per_pass=per_pass, dtype_of_sums=torch.float32)
    if broken:
        with pytest.raises(NumericalError, match="4:8, 0:4, 0:4"):
            predict_logits(Overflowing(), image, chosen)
    else:
        assert torch.allclose(predict_logits(Overflowing(), image, chosen).float(), image + 1)
        assert caplog.messages == ["The network put out NaN or infinity in mixed precision; tile repeated in float32"]


def test_mean_over_members():
    network = Constant()

    def load(member):
        network.value = member

    logits = predict_logits(network, torch.zeros(1, 4, 4, 4), settings(), (1.0, 2.0, 6.0), load)
    assert logits.dtype == torch.float16 and np.unique(logits) == [3]
    logits = predict_logits(network, torch.zeros(1, 4, 4, 4), settings(), (-1.0, -2.0, -6.0), load)
    assert np.unique(logits) == [-3]
    with pytest.raises(ArgumentError):
        predict_logits(network, torch.zeros(1, 4, 4, 4), settings(), (), load)
