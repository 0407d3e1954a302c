"""Operators of long axes, made from the samples around, against the whole matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nnunet_lite.preprocessing import interpolation
from nnunet_lite.preprocessing.interpolation import axis_operator, operator_blocks


@pytest.mark.parametrize(("size_in", "size_out"), [(300, 410), (500, 210), (130, 131), (40, 90), (3, 70), (70, 3)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equal_to_the_whole_matrix(size_in, size_out, order, monkeypatch):
    expected = axis_operator(size_in, size_out, order)
    monkeypatch.setattr(interpolation, "DENSE_ELEMENTS", 0)
    operator_blocks.cache_clear()
    found = np.zeros_like(expected)
    for block in operator_blocks(size_in, size_out, order):
        found[block.out_start : block.out_stop, block.in_start : block.in_stop] = block.matrix
    operator_blocks.cache_clear()
    np.testing.assert_allclose(found, expected, atol=2e-7)


def test_memory_does_not_grow_with_the_square_of_the_axis():
    operator_blocks.cache_clear()
    tracemalloc.start()
    blocks = operator_blocks(9000, 9400, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    operator_blocks.cache_clear()
    assert peak < 20e6  # the matrix would take 677e6 bytes
    signal = np.sin(np.arange(9000) / 20)
    block = blocks[70]
    position = (np.arange(block.out_start, block.out_stop) + 0.5) * (9000 / 9400) - 0.5
    found = block.matrix @ signal[block.in_start : block.in_stop]
    np.testing.assert_allclose(found, np.sin(position / 20), atol=1e-5)
