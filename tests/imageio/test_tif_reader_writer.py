"""Tiff3DIO and its spacing sidecar."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import tifffile

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.tif_reader_writer import Tiff3DIO

STACK = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)


@pytest.fixture
def image(tmp_path):
    tifffile.imwrite(tmp_path / "case_0000.tif", STACK, photometric="minisblack")
    return tmp_path / "case_0000.tif"


def test_spacing_sidecar(tmp_path, image):
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [3, 1.0, 1.5]}))
    data, properties = Tiff3DIO().read_images([str(image), str(image)])
    assert data.shape == (2, 3, 4, 5) and data.dtype == np.float32
    assert properties["spacing"] == [3, 1.0, 1.5]
    assert Tiff3DIO().read_header(str(image)) == ((1, 3, 4, 5), (3, 1.0, 1.5))


def test_without_sidecar_spacing_is_one_with_a_warning(image, caplog):
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        assert Tiff3DIO().read_images([str(image)])[1]["spacing"] == [1, 1, 1]
    assert "case.json" in caplog.text


@pytest.mark.parametrize("content", ['{"spacing": [1, 2]}', '{"spacing": [1, 0, 2]}', '{"spacing": "no"}', "{}", "no"])
def test_unusable_sidecar(tmp_path, image, content):
    (tmp_path / "case.json").write_text(content)
    with pytest.raises(DatasetError, match=r"case\.json"):
        Tiff3DIO().read_images([str(image)])


@pytest.mark.parametrize("shape", [(3, 4, 5), (5, 6, 3), (3, 6, 7), (1, 4, 5)])
def test_labels_round_trip_with_spacing(tmp_path, shape):
    seg = np.arange(np.prod(shape)).reshape(shape) % 7
    file = str(tmp_path / "out.tif")
    Tiff3DIO().write_seg(seg, file, {"spacing": [2.0, 0.5, 0.5]})
    back, properties = Tiff3DIO().read_seg(file)
    np.testing.assert_array_equal(back[0], seg)
    assert back.dtype == np.uint8 and properties["spacing"] == [2.0, 0.5, 0.5]
    assert Tiff3DIO().companion_files(file) == [str(tmp_path / "out.json")]
    with tifffile.TiffFile(file) as content:
        assert content.pages[0].compression.name.endswith("DEFLATE")


def test_ending_and_dimensions_are_checked(tmp_path):
    with pytest.raises(DatasetError, match=r"\.tif"):
        Tiff3DIO().write_seg(STACK, str(tmp_path / "a.png"), {"spacing": [1, 1, 1]})
    tifffile.imwrite(tmp_path / "flat.tif", STACK[0])
    with pytest.raises(DatasetError, match="three axes"):
        Tiff3DIO().read_images([str(tmp_path / "flat.tif")])
    assert Tiff3DIO().companion_files(str(tmp_path / "flat.tif")) == []


def test_2d_colour_image_is_no_stack(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tiff", np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    for read in (Tiff3DIO().read_header, lambda file: Tiff3DIO().read_images([file])):
        with pytest.raises(DatasetError, match=r"rgb\.tiff: a colour image of 5 x 6 pixels.*NaturalImage2DIO"):
            read(str(tmp_path / "rgb.tiff"))


def test_three_slices_tagged_as_planes_of_colour_are_slices(tmp_path):
    tifffile.imwrite(tmp_path / "s.tiff", STACK.astype(np.uint8), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(Tiff3DIO().read_images([str(tmp_path / "s.tiff")])[0][0], STACK)
