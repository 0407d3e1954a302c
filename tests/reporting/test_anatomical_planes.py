"""Planes are turned as radiologists look at them, whatever the order and direction of the stored axes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunet_lite.reporting.anatomical_planes import (
    ANATOMICAL,
    AS_STORED,
    orientation_of,
    oriented,
    oriented_spacing,
    planes_of,
    section,
    shown_box,
)

SHAPE, SPACING = (5, 6, 7), (3.0, 2.0, 1.0)  # superior, posterior, left
MARKS = {"R": (2, 3, 0), "L": (2, 3, 6), "A": (2, 0, 3), "P": (2, 5, 3), "I": (0, 3, 3), "S": (4, 3, 3)}
CODES = ("LPS", "RAS", "LPI", "PIR", "SAL", "ASR", "IRP")


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("code", CODES)
def test_every_edge_is_where_its_letter_says(tmp_path: Path, code: str, reader: type[BaseReaderWriter]) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    for value, place in enumerate(MARKS.values(), 1):
        voxels[place] = value
    image = sitk.GetImageFromArray(voxels)  # x to the left, y to posterior, z to superior
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(tmp_path / "a.nii.gz"))
    assert nib.load(tmp_path / "a.nii.gz").shape != SHAPE[::-1] or code in ("LPS", "RAS", "LPI")
    labels, properties = reader().read_seg(str(tmp_path / "a.nii.gz"))
    orientation = orientation_of(properties)
    turned = oriented(labels[0], orientation)
    assert np.array_equal(turned, voxels)
    assert oriented_spacing(properties["spacing"], orientation) == pytest.approx(SPACING)
    numbers = dict(zip(MARKS, range(1, 7), strict=True))
    for plane in planes_of(turned.shape, orientation):
        shown = section(turned, plane, (2, 3, 3)[plane.axis])
        left, right, top, bottom = (numbers[letter] for letter in plane.letters)
        assert left in shown[:, 0] and right in shown[:, -1] and top in shown[0] and bottom in shown[-1], plane


def test_oblique_axes_are_named_after_the_closest() -> None:
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    orientation = orientation_of({"sitk_stuff": {"direction": turn.ravel().tolist()}})
    assert orientation.axes == (0, 1, 2) and orientation.flips == (False, False, False) and orientation.is_anatomical


@pytest.mark.parametrize(
    "properties",
    [{}, {"sitk_stuff": {"direction": (1, 0, 0, 1)}}, {"sitk_stuff": {"direction": (0,) * 9}},
     {"sitk_stuff": {"direction": (np.nan,) * 9}}],
)  # fmt: skip
def test_what_has_no_orientation_is_shown_as_it_is_stored(properties: dict[str, object]) -> None:
    assert orientation_of(properties) == AS_STORED
    assert [plane.name for plane in planes_of((4, 5, 6), AS_STORED)] == [f"across axis {axis}" for axis in range(3)]
    assert not any("".join(plane.letters) for plane in planes_of((4, 5, 6), AS_STORED))


def test_a_flat_image_has_one_plane() -> None:
    anatomical = AS_STORED._replace(is_anatomical=True)
    assert planes_of((1, 5, 6), anatomical) == (ANATOMICAL[0],)
    assert [(plane.name, plane.axis) for plane in planes_of((1, 5, 6), AS_STORED)] == [("image", 0)]


def test_a_spacing_that_is_none_counts_as_one() -> None:
    assert oriented_spacing((0.0, float("nan"), 2.5), AS_STORED) == (1.0, 1.0, 2.5)


def test_the_box_holds_what_is_segmented_and_stays_inside() -> None:
    for rows in (slice(0, 3), slice(47, 53), slice(96, 100), slice(0, 100)):
        flat = np.zeros((100, 40), bool)
        flat[rows, 35:40] = True
        first, second = shown_box(flat)
        assert first.start <= rows.start and first.stop >= rows.stop and first.start >= 0 and first.stop <= 100
        assert first.stop - first.start >= 45 and second.stop == 40 and second.stop - second.start == 18
    assert shown_box(np.zeros((8, 9), bool)) == (slice(0, 8), slice(0, 9))
