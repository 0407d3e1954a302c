"""Spline interpolation along an axis so long that the matrix of all its inputs and outputs would not fit into memory.

The weight of a sample falls by a factor of at least 2.3 per step (order 5; 3.7 for cubic splines), so a range of
outputs is found from the inputs around it alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

DENSE_ELEMENTS = 2**24  # of a whole matrix: 128 MiB

_MARGIN = 48  # inputs on either side; what is left out is below 1e-17


def local_operator(
    size_in: int, size_out: int, order: int, start: int, stop: int
) -> tuple[int, NDArray[np.floating[Any]]]:
    """Rows [start, stop) of `axis_operator` (order 1 to 5).

    Returns:
        The first input that counts, and the weights (stop - start, inputs) from there on.
    """
    position = (np.arange(start, stop) + 0.5) * (size_in / size_out) - 0.5
    first = max(0, int(position[0]) - _MARGIN)
    last = min(size_in, int(position[-1]) + _MARGIN + 2)
    identity = np.eye(last - first)
    rows = np.broadcast_to((position - first)[:, None], (stop - start, last - first))
    columns = np.broadcast_to(np.arange(last - first), rows.shape)
    weights: NDArray[np.floating[Any]] = scipy.ndimage.map_coordinates(
        identity, [rows, columns], order=order, mode="nearest"
    )
    return first, weights
