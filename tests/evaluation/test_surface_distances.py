"""Surface distances against shapes with known answers, a slow independent computation and recorded figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nnunet_lite.evaluation import surface_distances
from nnunet_lite.evaluation.surface_distances import element_areas, surface_metrics, surface_of

ANISOTROPIC = (3.0, 0.7, 0.5)


def _plate(shape, axis, where):
    mask = np.zeros(shape, bool)
    mask[(slice(None),) * axis + (where,)] = True
    return mask


@pytest.mark.parametrize(("shape", "spacing"), [((12, 12, 12), ANISOTROPIC), ((12, 12), (2.5, 0.6))])
def test_parallel_plates_along_every_axis(shape, spacing):
    for axis, step in enumerate(spacing):
        near, far = _plate(shape, axis, 2), _plate(shape, axis, 7)  # 4 voxels of background lie between
        found = surface_metrics(near, far, spacing, 4 * step)
        assert found["hd95"] == pytest.approx(5 * step)
        assert found["assd"] == pytest.approx(4.5 * step)
        assert found["nsd"] == pytest.approx(0.5)
        assert surface_metrics(near, far, spacing, 3.9 * step)["nsd"] == 0
        assert surface_metrics(far, near, spacing, 5 * step)["nsd"] == 1


def _ball(radius, spacing=(2.0, 1.0, 0.5)):
    axes = np.ogrid[tuple(slice(-math.ceil(20 / step), math.ceil(20 / step) + 1) for step in spacing)]
    return sum((axis * step) ** 2 for axis, step in zip(axes, spacing, strict=True)) <= radius**2


def test_concentric_balls_in_anisotropic_voxels():
    spacing = (2.0, 1.0, 0.5)
    found = surface_metrics(_ball(10), _ball(14), spacing, 1.0)
    assert found["assd"] == pytest.approx(4, abs=0.7)  # the corners around a slanted surface lie on either side of it
    assert found["hd95"] == pytest.approx(4, abs=1)
    assert found["nsd"] == 0
    cube = (1.0, 1.0, 1.0)
    assert surface_of(_ball(14, cube), cube).areas.sum() == pytest.approx(4 * math.pi * 14**2, rel=0.1)


def test_area_of_flat_surfaces_is_exact():
    mask = np.ones((4, 5, 6), bool)  # corners and edges are cut off; what is left of the six faces is flat
    areas = element_areas(ANISOTROPIC)
    codes = {axis: sum(1 << bit for bit in range(8) if not bit >> (2 - axis) & 1) for axis in range(3)}
    for axis, code in codes.items():
        assert areas[code] == pytest.approx(math.prod(ANISOTROPIC) / ANISOTROPIC[axis])
    assert surface_of(mask, ANISOTROPIC).corners.size == 5 * 6 * 7 - 3 * 4 * 5


def test_a_mask_and_its_complement_have_the_same_surface():
    for spacing in (ANISOTROPIC, (2.0, 0.5)):
        areas = element_areas(spacing)
        np.testing.assert_array_equal(areas, areas[::-1])
        assert (areas[1:-1] > 0).all() and areas[0] == areas[-1] == 0


def _slowly(reference, prediction, spacing, tolerance):
    """Corner by corner, every distance to every other."""
    points, weights = [], []
    for mask in (reference, prediction):
        padded, found, areas = np.pad(mask, 1), [], []
        for corner in itertools.product(*(range(edge + 1) for edge in mask.shape)):
            cell = padded[tuple(slice(place, place + 2) for place in corner)].ravel()
            code = sum(int(value) << bit for bit, value in enumerate(cell))
            if 0 < code < 2**cell.size - 1:
                found.append(np.multiply(corner, spacing))
                areas.append(element_areas(spacing)[code])
        points.append(np.array(found))
        weights.append(np.array(areas))
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    directed = [between.min(axis=1), between.min(axis=0)]
    hausdorff = []
    for distances, areas in zip(directed, weights, strict=True):
        order = np.argsort(distances, kind="stable")
        hausdorff.append(distances[order][np.argmax(np.cumsum(areas[order]) / areas.sum() >= 0.95)])
    distances, areas = np.concatenate(directed), np.concatenate(weights)
    agreeing = areas[distances <= tolerance + 1e-6].sum()
    return {"hd95": max(hausdorff), "assd": np.average(distances, weights=areas), "nsd": agreeing / areas.sum()}


@pytest.mark.parametrize("how", ["tree", "map", "slabs"])
@pytest.mark.parametrize(("shape", "spacing"), [((6, 7, 8), ANISOTROPIC), ((9, 14), (0.5, 2.0))])
def test_every_way_agrees_with_a_slow_computation(shape, spacing, how, monkeypatch):
    if how == "slabs":
        monkeypatch.setattr(surface_distances, "_SLAB", 1)
    else:
        monkeypatch.setattr(surface_distances, "_NEAR", 0.1)
        monkeypatch.setattr(surface_distances, "_MAP_VOXELS_PER_SEARCH", 0 if how == "tree" else math.inf)
    generator = np.random.default_rng(3)
    for _ in range(4):
        reference = generator.random(shape) < 0.1
        prediction = generator.random(shape) < 0.02
        reference.flat[0] = prediction.flat[-1] = True
        found = surface_metrics(reference, prediction, spacing, 1.0)
        assert found == pytest.approx(_slowly(reference, prediction, spacing, 1.0), rel=1e-5)


RECORDED = [  # by surface-distance 0.1 (Google DeepMind): HD95, mean over both directions by area, surface Dice
    ((5, 7, 6), (3.0, 0.8, 0.8), 1.0, (6.0, 0.8066359870432486, 0.8047189373707224)),
    ((9, 8), (0.5, 2.0), 0.4, (1.0, 0.0845734625983992, 0.8693478012701962)),
]


@pytest.mark.parametrize(("shape", "spacing", "tolerance", "expected"), RECORDED)
def test_figures_of_an_independent_library(shape, spacing, tolerance, expected):
    generator = np.random.default_rng(7)
    reference = generator.random(shape) < 0.3
    prediction = reference ^ (generator.random(shape) < 0.15)
    prediction[:2] = False
    found = surface_metrics(reference, prediction, spacing, tolerance)
    assert (found["hd95"], found["assd"], found["nsd"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (0, 0, 0), (0, 0)])
def test_empty_masks(shape):
    empty, spacing = np.zeros(shape, bool), (1.0,) * len(shape)
    assert all(math.isnan(value) for value in surface_metrics(empty, empty, spacing, 1).values())
    if empty.size:
        voxel = empty.copy()
        voxel.flat[0] = True
        for pair in ((voxel, empty), (empty, voxel)):
            found = surface_metrics(*pair, spacing, 1)
            assert math.isnan(found["hd95"]) and math.isnan(found["assd"]) and found["nsd"] == 0
        assert surface_metrics(voxel, voxel, spacing, 1) == {"hd95": 0, "assd": 0, "nsd": 1}


def test_one_voxel_one_step_away():
    first, second = np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    first[1, 1, 0] = second[1, 1, 1] = True
    found = surface_metrics(first, second, (5.0, 1.0, 0.4), 0.4)
    assert found == pytest.approx({"hd95": 0.4, "assd": 0.2, "nsd": 1})


def test_steps_that_add_up_inexactly_are_within_the_tolerance():
    first, second = _plate((12, 3), 0, 0), _plate((12, 3), 0, 3)
    assert surface_metrics(first, second, (0.1, 1.0), 0.3)["nsd"] == 1
