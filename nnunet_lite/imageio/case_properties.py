"""What is remembered of a case between reading its images and writing its segmentation."""

from __future__ import annotations

from typing import Any, TypedDict


class CaseProperties(TypedDict, total=False):
    """A plain dict with upstream's keys; it is stored beside every preprocessed case (nnU-Net v2 2.8.1 behaviour).

    A reader sets `spacing` and its own geometry, preprocessing adds the rest. Axes are in array order, slowest first.
    """

    spacing: list[float]  # 3 numbers, unit of the file (millimetres)
    sitk_stuff: dict[str, Any]  # SimpleITK's spacing, origin, direction: x first, LPS; written back as they are
    nibabel_stuff: dict[str, Any]  # original_affine and, if reoriented, reoriented_affine: 4x4, RAS
    nifti_header: bytes  # the 348 bytes of the image's header; ours, and only where label maps are written
    shape_before_cropping: tuple[int, ...]
    bbox_used_for_cropping: list[list[int]]  # per axis [first, one past the last]
    shape_after_cropping_and_before_resampling: tuple[int, ...]
    class_locations: dict[Any, Any]  # label or region -> (n, 4) indices [0, x, y, z] in network space
