"""Normalization schemes with the numbers of spec 01, 9.7."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_lite.exceptions import DatasetError, PlansError
from nnunet_lite.extensions import find_class
from nnunet_lite.preprocessing import normalization
from nnunet_lite.preprocessing.normalization import (
    CTNormalization,
    ImageNormalization,
    NoNormalization,
    RescaleTo01Normalization,
    RGBTo01Normalization,
    ZScoreNormalization,
)

CT = {"mean": 100.0, "std": 20.0, "percentile_00_5": 50.0, "percentile_99_5": 150.0}
MASK = np.array([[-1, 0, 0], [1, 1, 0]])


def _image() -> np.ndarray:
    return np.array([[0, 40, 100], [150, 200, -10]], np.float32)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (ZScoreNormalization(False), [-1.03568, -0.51784, 0.25892, 0.90622, 1.55351, -1.16514]),
        (ZScoreNormalization(True), [0, -0.74673, 0.05334, 0.72006, 1.38679, -1.41346]),
        (CTNormalization(False, CT), [-2.5, -2.5, 0, 2.5, 2.5, -2.5]),
        (NoNormalization(), [0, 40, 100, 150, 200, -10]),
        (RescaleTo01Normalization(), [0.04762, 0.2381, 0.52381, 0.7619, 1, 0]),
    ],
)
def test_values(scheme: ImageNormalization, expected: list[float]) -> None:
    image = _image()
    out = scheme.run(image, MASK)
    assert out is image and out.dtype == np.float32  # in place
    np.testing.assert_allclose(out.ravel(), expected, atol=1e-5)


def test_rgb() -> None:
    out = RGBTo01Normalization().run(np.array([[0, 128, 255]], np.uint8))
    np.testing.assert_allclose(out, [[0, 0.50196, 1]], atol=1e-5)
    with pytest.raises(DatasetError, match="from 0 to 255, this one has -10 to 200"):
        RGBTo01Normalization().run(_image())


def test_constant_image_and_empty_mask() -> None:
    constant = np.full((3, 4), 7, np.float32)
    assert not ZScoreNormalization(False).run(constant.copy()).any()
    assert not RescaleTo01Normalization().run(constant.copy()).any()
    untouched = ZScoreNormalization(True).run(constant.copy(), np.full((3, 4), -1))
    np.testing.assert_array_equal(untouched, constant)


def test_statistics_of_large_offsets_are_exact() -> None:
    image = np.full((64, 64, 64), 30000, np.float32)
    image[::2] += 1
    np.testing.assert_allclose(np.abs(ZScoreNormalization(False).run(image)), 1, atol=5e-3)


def test_missing_mask_and_statistics_are_named() -> None:
    with pytest.raises(DatasetError, match="use_mask_for_norm"):
        ZScoreNormalization(True).run(_image())
    with pytest.raises(PlansError, match="'percentile_00_5'"):
        CTNormalization(False, {"mean": 1.0}).run(_image())


def test_schemes_are_found_by_name() -> None:
    assert find_class("normalization", "RGBTo01Normalization") is RGBTo01Normalization


@pytest.mark.parametrize("shape", [(1, 40, 30), (3, 7, 5), (50,), (1, 1, 900)])
@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
def test_large_slices_are_worked_on_in_pieces(shape, scheme, monkeypatch):
    statistics = {"mean": 10.0, "std": 3.0, "percentile_00_5": 2.0, "percentile_99_5": 17.0}
    image = np.random.default_rng(0).normal(10, 4, shape).astype(np.float32)
    expected = find_class("normalization", scheme)(False, statistics).run(image.copy())
    monkeypatch.setattr(normalization, "_LARGEST_PIECE", 20)
    assert max(piece.size for piece in normalization._pieces(image)) <= max(20, shape[-1])
    np.testing.assert_allclose(find_class("normalization", scheme)(False, statistics).run(image), expected, atol=1e-6)
