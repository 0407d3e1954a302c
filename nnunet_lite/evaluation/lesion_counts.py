"""Which lesions were found: connected components of two masks counted against each other; arrays only."""

from __future__ import annotations

import math
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray


def count_lesions(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> dict[str, float]:
    """Lesions of the reference that were found and missed, and predicted ones that are false.

    A lesion is a connected component (voxels that touch at faces, edges or corners). One of the reference is found if
    at least one of its voxels is predicted; a predicted one is false if it touches no voxel of the reference.

    Args:
        reference, prediction: masks of the same shape, two or three axes.

    Returns:
        lesions_ref, lesions_pred, lesions_found, lesions_missed, lesions_false (whole numbers) and their rates.
    """
    numbered = [_components(mask) for mask in (reference, prediction)]
    lesions_ref, lesions_pred = (int(components.max(initial=0)) for components in numbered)
    both = reference & prediction
    found, touched = (int(np.unique(components[both]).size) for components in numbered)
    missed, false = lesions_ref - found, lesions_pred - touched
    return {
        "lesions_ref": lesions_ref,
        "lesions_pred": lesions_pred,
        "lesions_found": found,
        "lesions_missed": missed,
        "lesions_false": false,
        **detection_rates(found, missed, false),
    }


def detection_rates(found: int, missed: int, false: int) -> dict[str, float]:
    """Sensitivity, precision and F1 of numbers of lesions; NaN where there is nothing to divide by."""
    return {
        "lesion_sensitivity": _ratio(found, found + missed),
        "lesion_precision": _ratio(found, found + false),
        "lesion_f1": _ratio(2 * found, 2 * found + missed + false),
    }


def _components(mask: NDArray[np.bool_]) -> NDArray[Any]:
    if not mask.any():
        return np.zeros(mask.shape, np.uint16)
    numbered: NDArray[Any] = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=8 if mask.ndim == 2 else 26
    )
    return numbered


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
