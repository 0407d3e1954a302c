"""Slice choice, colours and blending as upstream's (spec 03, 8.4 and 11.12), its defects mended."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.overlay_picture import (
    COLOR_CYCLE,
    Slice,
    contours,
    generate_overlay,
    hex_to_rgb,
    label_colour,
    save_picture,
    save_picture_with_legend,
    select_slice_to_plot,
    select_slice_to_plot2,
    stamp_of,
    windowed,
)

IMAGE = np.array([[0, 1, 2], [3, 4, 5]])


def test_golden_blend():
    found = generate_overlay(IMAGE, np.array([[0, 1, 1], [2, 0, 5]]), mapping={0: 0, 1: 1, 2: 2, 5: 3})
    assert found.tolist() == [
        [[0, 0, 0], [64, 77, 126], [99, 113, 162]],
        [[210, 162, 128], [143, 143, 143], [204, 255, 210]],
    ]
    assert found.dtype == np.uint8


def test_golden_blend_of_a_slice_without_background_needs_the_mapping_that_upstream_made_of_it():
    found = generate_overlay(IMAGE, np.array([[1, 1, 2], [2, 2, 2]]), mapping={1: 0, 2: 1})
    assert found.tolist() == [
        [[0, 0, 0], [33, 33, 33], [94, 107, 153]],
        [[128, 140, 187], [161, 174, 221], [195, 208, 255]],
    ]


def test_golden_gray_without_labels():
    found = generate_overlay(IMAGE, np.zeros((2, 3), int))
    assert found[..., 0].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (found == found[..., :1]).all()


def test_a_label_has_one_colour_whatever_else_is_in_the_slice():
    dark = np.zeros((2, 3))
    alone = generate_overlay(dark, np.array([[5, 5, 5], [5, 5, 5]]))
    among = generate_overlay(dark, np.array([[0, 1, 2], [3, 4, 5]]))
    scale = alone[0, 0].max() / among[1, 2].max()
    assert np.abs(alone[0, 0] - among[1, 2] * scale).max() <= 2
    assert label_colour(5) == hex_to_rgb(COLOR_CYCLE[5]) == (145, 30, 180)


def test_each_of_many_labels_has_a_colour_that_no_other_has():
    colours = [label_colour(label) for label in range(200)]
    assert len(set(colours)) == 200
    assert colours[0] == (0, 0, 0) and min(max(colour) for colour in colours[1:]) > 100
    assert generate_overlay(np.zeros((1, 200)), np.arange(200)[None]).shape == (1, 200, 3)


def test_a_cycle_of_ones_own_starts_again_after_its_black():
    own = ("000000", "ff0000", "00ff00")
    assert [label_colour(label, own) for label in (1, 2, 3, 4)] == [(255, 0, 0), (0, 255, 0)] * 2


def test_constant_and_colour_images():
    assert not generate_overlay(np.full((2, 3), 7.0), np.zeros((2, 3), int)).any()
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[..., 0] = IMAGE * 51
    assert np.array_equal(generate_overlay(colours, np.zeros((2, 3), int)), colours)


def test_shapes_that_do_not_fit():
    with pytest.raises(DatasetError, match=r"\[2, 3\], its labels \[3, 2\]"):
        generate_overlay(IMAGE, np.zeros((3, 2), int))


def _upstreams_choice(seg: np.ndarray) -> int:
    """The rule of spec 03, 8.4, word for word: each column is divided by the sum of the matrix as it then is."""
    classes = [label for label in np.unique(seg) if label > 0]
    if not classes:
        return 0
    matrix = np.zeros((len(seg), len(classes)))
    for k, label in enumerate(classes):
        matrix[:, k] = (seg == label).sum((1, 2))
        matrix[:, k] /= matrix.sum()
    return int(matrix.mean(1).argmax())


@pytest.mark.parametrize("seed", range(20))
def test_slice_with_most_of_every_class(seed):
    rng = np.random.default_rng(seed)
    seg = rng.integers(-1, 5, (9, 6, 5)) * (rng.random((9, 6, 5)) < 0.3)
    assert select_slice_to_plot2(seg, seg) == _upstreams_choice(seg)
    assert select_slice_to_plot(seg, seg) == int((seg > 0).sum((1, 2)).argmax())


def test_without_foreground_the_first_slice_is_shown():
    seg = np.full((4, 3, 3), -1)
    assert select_slice_to_plot2(seg, seg) == select_slice_to_plot(seg, seg) == 0


def test_window_cuts_off_extremes_and_copes_with_anything():
    plane = np.linspace(0, 100, 10_000).reshape(100, 100)
    plane[0, 0] = 1e6
    assert windowed(plane).max() == pytest.approx(99.5, abs=0.1)
    assert np.array_equal(windowed(np.full((3, 3), 5.0)), np.full((3, 3), 5.0))
    assert np.isfinite(windowed(np.array([[np.nan, 1.0], [np.inf, 2.0]]))).all()


def test_contours_lie_inside_their_regions():
    labels = np.zeros((7, 7), int)
    labels[1:6, 1:6] = 3
    found = contours(labels)
    assert (found == 3).sum() == 16 and not found[2:5, 2:5].any() and not found[labels == 0].any()


def test_pngs_carry_their_note(tmp_path):
    picture = generate_overlay(IMAGE, IMAGE > 2)
    save_picture(picture, tmp_path / "plain.png", "made of x")
    with Image.open(tmp_path / "plain.png") as stored:
        assert (stored.mode, stored.size) == ("RGBA", (3, 2))
        assert np.array_equal(np.asarray(stored)[..., :3], picture)
        assert (np.asarray(stored)[..., 3] == 255).all()
    save_picture_with_legend(picture, Slice(IMAGE, IMAGE), {1: "one"}, tmp_path / "legend.png", "made of y")
    assert stamp_of(tmp_path / "plain.png") == "made of x"
    assert stamp_of(tmp_path / "legend.png") == "made of y"
    (tmp_path / "broken.png").write_bytes(b"x")
    assert stamp_of(tmp_path / "broken.png") is stamp_of(tmp_path / "nothing.png") is None
