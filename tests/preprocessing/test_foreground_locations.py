"""Sampled class locations against their definition (spec 01, 7.7)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnunet_lite.preprocessing.foreground_locations import sample_foreground_locations


def _by_definition(seg: np.ndarray, requests: list[Any]) -> dict[Any, Any]:
    random_state, result = np.random.RandomState(1234), {}
    for request in requests:
        labels = request if isinstance(request, tuple) else (request,)
        pool = np.concatenate([np.argwhere(seg == label) for label in labels])
        number = min(len(pool), max(10000, int(np.ceil(0.01 * len(pool)))))
        result[request] = pool[random_state.choice(len(pool), number, replace=False)] if len(pool) else []
    return result


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_voxels_as_the_definition_draws(seed: int) -> None:
    seg = np.random.default_rng(seed).integers(-1, 5, (1, 20, 40, 50)).astype(np.int16)
    seg[0, 3:9] = 0
    requests = [1, (2, 1), 4, (2,), 9, (-1, 0, 1, 2, 3)]
    result = sample_foreground_locations(seg, requests)
    expected = _by_definition(seg, requests)
    assert list(result) == requests and result[9] == []
    for request, locations in expected.items():
        np.testing.assert_array_equal(result[request], locations)
        assert request == 9 or result[request].dtype == np.int64


@pytest.mark.parametrize(("voxels", "expected"), [(120**3, 17280), (23992, 10000), (8, 8)])
def test_how_many_are_drawn(voxels: int, expected: int) -> None:
    seg = np.zeros((1, 120, 120, 120), np.int8)
    seg.reshape(-1)[:voxels] = 1
    assert len(sample_foreground_locations(seg, [1])[1]) == expected


def test_no_classes() -> None:
    assert sample_foreground_locations(np.zeros((1, 2, 2, 2), np.int8), []) == {}
