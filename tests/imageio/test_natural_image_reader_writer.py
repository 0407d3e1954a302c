"""NaturalImage2DIO against the recorded facts (spec 01, 9.9)."""

from __future__ import annotations

import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.natural_image_reader_writer import NaturalImage2DIO

RGB = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
GRAY = np.random.default_rng(1).integers(0, 255, (4, 5)).astype(np.uint8)
PROPERTIES = {"spacing": [999, 1, 1]}


def save(folder, name, pixels):
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_rgb_and_gray(tmp_path, ending):
    rgb, gray = save(tmp_path, f"rgb{ending}", RGB), save(tmp_path, f"gray{ending}", GRAY)
    data, properties = NaturalImage2DIO().read_images([rgb])
    assert data.dtype == np.float32 and data.flags.c_contiguous and properties == PROPERTIES
    np.testing.assert_array_equal(data, RGB.transpose(2, 0, 1)[:, None])
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([gray, gray])[0], np.stack([GRAY, GRAY])[:, None])
    assert NaturalImage2DIO().read_header(rgb) == ((3, 1, 4, 5), (999, 1, 1))
    assert NaturalImage2DIO().read_header(gray) == ((1, 1, 4, 5), (999, 1, 1))
    with pytest.raises(DatasetError, match="shape"):
        NaturalImage2DIO().read_images([rgb, gray])


def test_rgba_and_16_bit(tmp_path):
    rgba = save(tmp_path, "a.png", np.dstack([RGB, GRAY]))
    assert NaturalImage2DIO().read_images([rgba])[0].shape == (4, 1, 4, 5)
    deep = save(tmp_path, "b.png", GRAY.astype(np.uint16) * 200)
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([deep])[0][0, 0], GRAY * 200.0)


def test_palette_is_colours_in_images_and_labels_in_label_maps(tmp_path):
    image = Image.new("P", (5, 4))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putdata([i % 3 for i in range(20)])
    image.save(tmp_path / "p.png")
    file = str(tmp_path / "p.png")
    assert NaturalImage2DIO().read_images([file])[0].shape == (3, 1, 4, 5) == NaturalImage2DIO().read_header(file).shape
    assert NaturalImage2DIO().read_seg(file)[0].ravel().tolist() == [i % 3 for i in range(20)]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize(("highest", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_written_labels(tmp_path, ending, highest, dtype):
    seg = np.zeros((1, 4, 5), np.int64)
    seg[0, 1, 2] = highest
    file = str(tmp_path / f"s{ending}")
    if (ending, highest) == (".bmp", 255):
        with pytest.raises(DatasetError, match="png"):
            NaturalImage2DIO().write_seg(seg, file, PROPERTIES)
        return
    NaturalImage2DIO().write_seg(seg, file, PROPERTIES)
    back, _ = NaturalImage2DIO().read_seg(file)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back[0], seg)


def test_3d_stack_with_three_columns_is_no_rgb_image(tmp_path):
    stack = np.zeros((5, 6, 3), np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "rgb.tif", stack, photometric="rgb")
    with pytest.raises(DatasetError, match="Tiff3DIO"):
        NaturalImage2DIO().read_images([str(tmp_path / "stack.tif")])
    with pytest.raises(DatasetError, match="Tiff3DIO"):
        NaturalImage2DIO().read_header(str(tmp_path / "stack.tif"))
    assert NaturalImage2DIO().read_images([str(tmp_path / "rgb.tif")])[0].shape == (3, 1, 5, 6)


def test_what_cannot_be_read_is_one_line(tmp_path):
    Image.new("LA", (5, 4)).save(tmp_path / "la.png")
    with pytest.raises(DatasetError, match="transparency"):
        NaturalImage2DIO().read_images([str(tmp_path / "la.png")])
    rgb = save(tmp_path, "rgb.png", RGB)
    with pytest.raises(DatasetError, match="3 values per voxel.*a label map has one"):
        NaturalImage2DIO().read_seg(rgb)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200)).astype(np.uint8)
    for name in ("t.png", "t.tif", "t.bmp"):
        file = tmp_path / name
        save(tmp_path, name, noise)
        file.write_bytes(file.read_bytes()[:20000])
        with pytest.raises(DatasetError, match=name) as error:
            NaturalImage2DIO().read_images([str(file)])
        assert "\n" not in str(error.value)
        file.unlink()
        with pytest.raises(DatasetError, match="does not exist"):
            NaturalImage2DIO().read_images([str(file)])


def test_planes_of_colours_in_a_tiff_are_colours(tmp_path):
    tifffile.imwrite(tmp_path / "p.tif", RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    file = str(tmp_path / "p.tif")
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([file])[0][:, 0], RGB.transpose(2, 0, 1))
    assert NaturalImage2DIO().read_header(file).shape == (3, 1, 4, 5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32", "float64"])
def test_tiff_of_any_type(tmp_path, dtype):
    pixels = (GRAY * 3).astype(dtype) / (2 if dtype.startswith("f") else 1)
    tifffile.imwrite(tmp_path / "a.TIF", pixels.astype(dtype))
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([str(tmp_path / "a.TIF")])[0][0, 0], pixels)


def test_one_bit_png(tmp_path):
    Image.fromarray(GRAY > 99).save(tmp_path / "b.png")
    file = str(tmp_path / "b.png")
    np.testing.assert_array_equal(NaturalImage2DIO().read_images([file])[0][0, 0], GRAY > 99)
    seg, _ = NaturalImage2DIO().read_seg(file)
    assert seg.dtype == np.uint8 and sorted(np.unique(seg)) == [0, 1]


def test_colours_of_16_bits_are_warned_about(tmp_path, caplog):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB.astype(np.uint16) * 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        data, _ = NaturalImage2DIO().read_images([str(tmp_path / "deep.png")])
    np.testing.assert_array_equal(data[:, 0], RGB.transpose(2, 0, 1))
    assert "deep.png: 16 bits per colour" in caplog.text


def test_an_image_beyond_pillows_limit_is_read(tmp_path, monkeypatch):
    file = str(tmp_path / "slide.png")
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow refuses twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)
    reader = NaturalImage2DIO()
    assert reader.read_header(file).shape == (1, 1, 10, 20)
    assert reader.read_images([file])[0].sum() == 19900
    assert Image.MAX_IMAGE_PIXELS == 50


def test_an_image_larger_than_memory_is_one_line(tmp_path):
    """A few bytes that claim 4e16 pixels."""
    file = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[16:24] = struct.pack(">II", 2 * 10**8, 2 * 10**8)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"200000000 x 200000000 pixels.*cut the image into parts"):
        NaturalImage2DIO().read_images([str(file)])
