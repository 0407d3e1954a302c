"""Pictures of cases: the right slice, the right proportions, outlines in the voxels of the picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.reporting.case_pictures import MOST_PIXELS, PictureTask, draw_case, gray_window

SHAPE, SPACING = (12, 40, 50), (0.5, 1.0, 5.0)  # (z, y, x), (x, y, z)


def write(file: Path, voxels: NDArray[np.generic]) -> str:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(file))
    return str(file)


def picture(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{str(image.format).lower()}"
    return image


@pytest.fixture
def task(tmp_path: Path) -> PictureTask:
    """A block of class 1 that the prediction misses in slice 7 alone, most of it; and some voxels of class 2."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[3:10, 10:30, 20:40] = 1
    prediction = reference.copy()
    prediction[7, 12:, :] = 0
    prediction[8, 10, 20] = 2
    image = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.float32)
    files = [
        write(tmp_path / f"{name}.nii.gz", v) for name, v in zip("irp", (image, reference, prediction), strict=True)
    ]
    return PictureTask(SimpleITKIO, files[0], 0, files[1], files[2], (1, 2), None, True)


def test_three_planes(task: PictureTask) -> None:
    axial, coronal, sagittal = draw_case(task)
    assert [panel.plane for panel in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert (axial.slice_number, axial.slices) == (8, 12)  # from 1
    assert (axial.spacing, coronal.spacing, sagittal.spacing) == ((1.0, 0.5), (5.0, 0.5), (5.0, 1.0))
    for panel in (axial, coronal, sagittal):
        assert panel.image.startswith("data:image/png") and panel.is_small
        assert picture(panel.image).size == panel.voxels[::-1]
    assert [outline.number for outline in axial.outlines] == [0]
    assert axial.outlines[0].reference.endswith("h20v20h-20z") and axial.outlines[0].prediction.endswith("h20v2h-20z")


def test_slices_with_most_foreground(task: PictureTask) -> None:
    axial, *_ = draw_case(task._replace(at_errors=False))
    assert axial.slice_number == 4  # the first of equal ones
    perfect = draw_case(task._replace(prediction=task.reference))
    assert perfect[0].slice_number == 4 and perfect[0].outlines[0].reference == perfect[0].outlines[0].prediction


def test_regions_are_outlined_as_their_union(task: PictureTask) -> None:
    axial, *_ = draw_case(task._replace(classes=((1, 2), 2)))
    assert [outline.number for outline in axial.outlines] == [0]


def test_what_is_not_annotated_is_shaded_and_no_error(task: PictureTask, tmp_path: Path) -> None:
    labels = sitk.GetArrayFromImage(sitk.ReadImage(task.reference))
    labels[7] = 3
    reference = write(tmp_path / "ignored.nii.gz", labels)
    axial, *others = draw_case(task._replace(reference=reference, ignore_label=3))
    assert axial.slice_number == 9 and axial.ignored == "" and all(panel.ignored for panel in others)


def test_without_image(task: PictureTask, tmp_path: Path) -> None:
    assert [panel.image for panel in draw_case(task._replace(image=None))] == [""] * 3
    other = write(tmp_path / "other.nii.gz", np.zeros((4, 5, 6), np.float32))
    assert draw_case(task._replace(image=other))[0].image == ""  # of another shape


def test_constant_and_broken_intensities(task: PictureTask, tmp_path: Path) -> None:
    values = np.full(SHAPE, np.nan, np.float32)
    assert picture(draw_case(task._replace(image=write(tmp_path / "nan.nii.gz", values)))[0].image).getextrema() == (
        0,
        0,
    )


def test_all_planes_have_the_window_of_the_volume_so_that_air_is_dark(task: PictureTask, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    volume = generator.normal(0, 3, SHAPE).astype(np.float32)  # air and its noise
    volume[:7] += 100.0
    axial, *_ = draw_case(task._replace(image=write(tmp_path / "air.nii.gz", volume)))
    assert axial.slice_number == 8  # a slice of air
    assert np.asarray(picture(axial.image)).max() < 40
    inner, *_ = draw_case(task._replace(image=write(tmp_path / "air.nii.gz", volume), at_errors=False))
    assert np.asarray(picture(inner.image)).min() > 200


def test_the_window_leaves_background_and_extremes_alone() -> None:
    volume = np.zeros((20, 20, 20))
    volume[10:] = np.linspace(50, 150, 4000).reshape(10, 20, 20)
    volume[10, 0, 0] = 1e6
    low, high = gray_window(volume)
    assert low == pytest.approx(50.5, abs=0.1) and high == pytest.approx(149.5, abs=0.2)
    assert gray_window(np.full((2, 2, 2), 7.0)) == (7.0, 8.0)
    assert gray_window(np.full((2, 2, 2), np.nan)) == (0.0, 1.0)
    assert gray_window(np.array([0, 0, 5])) == (0.0, 5.0)


def test_large_planes_are_made_smaller(tmp_path: Path) -> None:
    labels = np.zeros((1, 900, 1200), np.uint8)
    labels[0, 5:890, 5:1190] = np.random.default_rng(0).integers(0, 60, (885, 1185))
    Image.fromarray(labels[0]).save(tmp_path / "l.png")
    colours = np.random.default_rng(1).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "i.png")
    files = {name: str(tmp_path / f"{name}.png") for name in "il"}
    classes = tuple(range(1, 60))
    [panel] = draw_case(PictureTask(NaturalImage2DIO, files["i"], 0, files["l"], files["l"], classes, None, True))
    image = picture(panel.image)
    assert max(image.size) == MOST_PIXELS and image.mode == "RGB" and image.format == "JPEG"
    assert len(panel.outlines) == 24 and panel.left_out == 35
    assert sum(len(outline.reference + outline.prediction) for outline in panel.outlines) <= 36_000


def test_files_that_do_not_belong_together(task: PictureTask, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must lie in the grid"):
        draw_case(task._replace(prediction=write(tmp_path / "small.nii.gz", np.zeros((4, 5, 6), np.uint8))))
