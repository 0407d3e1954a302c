"""Outlines enclose exactly the voxels of their mask."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lite.reporting import outlines
from nnunet_lite.reporting.outlines import colours_of_class, outline_colour, outline_path


def filled(path: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The voxels inside a path, by the rule that SVG fills with: the sum of the windings."""
    winding = np.zeros((shape[0], shape[1] + 1), int)
    for loop in path.split("z")[:-1]:
        head = re.match(r"M(\d+) (\d+)", loop)
        assert head is not None
        x, y = start = int(head[1]), int(head[2])
        corners = [start]
        for kind, length in re.findall(r"([hv])(-?\d+)", loop[head.end() :]):
            x, y = (x + int(length), y) if kind == "h" else (x, y + int(length))
            corners.append((x, y))
        corners.append(start)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
            assert x0 == x1 or y0 == y1
            winding[min(y0, y1) : max(y0, y1), x0] += np.sign(y1 - y0) if x0 == x1 else 0
    return np.cumsum(winding, 1)[:, :-1] != 0


@pytest.mark.parametrize("seed", range(25))
def test_a_path_encloses_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
    assert np.array_equal(filled(outline_path(mask), mask.shape), mask)


def test_straight_runs_are_one_step() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:5, 3:8] = True
    assert outline_path(mask) == "M3 2h5v3h-5z"
    mask[3, 4] = False
    assert outline_path(mask).count("M") == 2  # a hole has an outline of its own


def test_voxels_that_touch_at_a_corner_stay_apart() -> None:
    assert outline_path(np.eye(2, dtype=bool)) == "M0 0h1v1h-1zM1 1h1v1h-1z"


def test_nothing_to_outline() -> None:
    assert outline_path(np.zeros((4, 5), bool)) == "" == outline_path(np.zeros((0, 5), bool))


def test_a_long_outline_is_made_coarser() -> None:
    mask = np.random.default_rng(0).random((300, 280)) < 0.5
    assert len(outline_path(mask, 10**9)) > 100_000
    assert len(outline_path(mask, 5000)) <= 5000
    disk = np.hypot(*(np.indices((300, 280)) - 140)) < 100
    coarse = filled(outline_path(disk, 700), disk.shape)
    assert 2 * np.count_nonzero(coarse & disk) / (coarse.sum() + disk.sum()) > 0.97


def test_colours_differ_and_are_bright() -> None:
    colours = [outline_colour(index) for index in range(118)]
    assert len(set(colours)) == 118
    for colour in colours:
        assert re.fullmatch(r"#[0-9a-f]{6}", colour)
        assert max(int(colour[k : k + 2], 16) for k in (1, 3, 5)) > 150


@pytest.mark.parametrize("classes", [1, 4, 5, 118])
def test_reference_and_prediction_of_few_classes_differ_in_colour(classes: int) -> None:
    pairs = [colours_of_class(number, classes) for number in range(classes)]
    assert all((reference != prediction) is (classes <= 4) for reference, prediction in pairs)
    assert len({colour for pair in pairs for colour in pair}) == (2 * classes if classes <= 4 else classes)


def test_many_outlines_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the next one from the front each time passes over all that were taken out: quadratic."""

    class Counted(dict[tuple[int, int], list[tuple[int, int]]]):
        looked = 0

        def __iter__(self) -> Iterator[tuple[int, int]]:
            Counted.looked += 1
            return super().__iter__()

    steps = outlines._steps
    monkeypatch.setattr(outlines, "_steps", lambda mask: Counted(steps(mask)))
    mask = np.zeros((40, 40), bool)
    mask[::2, ::2] = True
    assert outline_path(mask, 10**9).count("M") == 400 and Counted.looked == 1


def test_noise_and_long_borders_are_not_followed_before_they_are_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    steps = outlines._steps

    def watched(mask: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
        followed.append(outlines._borders(mask))
        return steps(mask)

    monkeypatch.setattr(outlines, "_steps", watched)
    isolated = np.zeros((400, 400), bool)
    isolated[::2, ::2] = True
    striped = np.zeros((400, 3000), bool)
    striped[::2] = True
    for mask in (isolated, striped, np.random.default_rng(0).random((400, 400)) < 0.5):
        followed.clear()
        assert len(outline_path(mask, 6000)) <= 6000
        assert sum(followed) <= 20 * 6000


@pytest.mark.parametrize("seed", range(10))
def test_corners_never_promise_a_longer_path_than_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
    path = outline_path(mask, 10**9)
    assert 2 * outlines._corners(mask) <= len(path)
    assert outlines._borders(mask) == sum(map(len, outlines._steps(mask).values()))
