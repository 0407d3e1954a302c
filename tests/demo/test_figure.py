"""The picture exists, is a PNG, and shows what is given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from nnunet_lite.demo.figure import save_comparison


@pytest.mark.parametrize("empty", [False, True])
def test_picture_shows_reference_and_prediction(tmp_path, empty):
    image = np.random.default_rng(0).normal(size=(6, 20, 24))
    reference = np.zeros(image.shape, np.uint8)
    if not empty:
        reference[2:5, 5:15, 5:15] = 1
    save_comparison(image, reference, reference * 2, (3.0, 1.0, 1.0), tmp_path / "case.png", "case")
    save_comparison(image, reference, reference * 0, (3.0, 1.0, 1.0), tmp_path / "other.png", "case")
    first, second = imread(tmp_path / "case.png"), imread(tmp_path / "other.png")
    assert first.shape == second.shape and min(first.shape[:2]) > 500
    thirds = [np.abs(first - second)[:, part] for part in np.array_split(np.arange(first.shape[1]), 3)]
    assert thirds[0].max() == 0
    assert (thirds[2].max() == 0) == empty
