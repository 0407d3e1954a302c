"""SimpleITKIO and SimpleITKIOWithReorient against the recorded facts (spec 01, 9.9) and against SimpleITK itself."""

from __future__ import annotations

import gzip
import itertools
import logging
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio import nifti
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

OBLIQUE = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)


def write(
    path: Path, array: np.ndarray, spacing=(0.7, 0.8, 2.5), origin=(3.0, -4.0, 5.5), direction=None, vector=False
) -> str:
    image = sitk.GetImageFromArray(array, isVector=vector)
    dimension = image.GetDimension()
    image.SetSpacing((*spacing, 1.0)[:dimension])
    image.SetOrigin((*origin, 0.0)[:dimension])
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), True)
    return str(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_read_images_equals_simpleitk(tmp_path, ending, dtype):
    array = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(dtype)
    file = write(tmp_path / f"a{ending}", array, direction=OBLIQUE)
    data, properties = SimpleITKIO().read_images([file, file])
    expected = sitk.ReadImage(file)
    assert data.dtype == np.float32 and data.shape == (2, 3, 4, 5) and data.flags.writeable
    np.testing.assert_array_equal(data, np.stack([sitk.GetArrayFromImage(expected)] * 2).astype(np.float32))
    assert properties["spacing"] == list(expected.GetSpacing())[::-1]
    assert properties["sitk_stuff"] == {
        "spacing": expected.GetSpacing(),
        "origin": expected.GetOrigin(),
        "direction": expected.GetDirection(),
    }
    assert SimpleITKIO().read_header(file) == ((1, 3, 4, 5), tuple(properties["spacing"]))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_written_labels_have_exactly_the_geometry_of_the_image(tmp_path, ending):
    file = write(tmp_path / f"a{ending}", np.zeros((3, 4, 5), np.int16), direction=OBLIQUE)
    seg = np.arange(60).reshape(3, 4, 5)
    SimpleITKIO().write_seg(seg, str(tmp_path / f"out{ending}"), SimpleITKIO().read_images([file])[1])
    image, written = sitk.ReadImage(file), sitk.ReadImage(str(tmp_path / f"out{ending}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), seg)
    assert written.GetSpacing() == image.GetSpacing()
    assert written.GetOrigin() == image.GetOrigin()
    assert written.GetDirection() == image.GetDirection()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"out{ending}"]


def test_2d_file(tmp_path):
    file = write(tmp_path / "a.nii.gz", np.arange(30, dtype=np.int16).reshape(5, 6), spacing=(0.5, 0.7))
    reader = SimpleITKIO()
    data, properties = reader.read_images([file])
    assert data.shape == (1, 1, 5, 6)
    np.testing.assert_allclose(properties["spacing"], [699.3, 0.7, 0.5], rtol=1e-6)
    assert reader.read_header(file) == ((1, 1, 5, 6), tuple(properties["spacing"]))
    reader.write_seg(np.ones((1, 5, 6), np.uint8), str(tmp_path / "seg.nii.gz"), properties)
    assert sitk.ReadImage(str(tmp_path / "seg.nii.gz")).GetDimension() == 2


def test_4d_file_is_channels_and_can_be_written(tmp_path):
    image = sitk.JoinSeries([sitk.GetImageFromArray(np.full((2, 3, 4), i, np.int16)) for i in range(3)])
    file = str(tmp_path / "a.nii.gz")
    sitk.WriteImage(image, file)
    data, properties = SimpleITKIO().read_images([file])
    assert data.shape == (3, 2, 3, 4) and data[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert properties["spacing"] == [1, 1, 1] and len(properties["sitk_stuff"]["direction"]) == 9
    assert SimpleITKIO().read_header(file).shape == (3, 2, 3, 4)
    SimpleITKIO().write_seg(np.ones((2, 3, 4), int), str(tmp_path / "seg.nii.gz"), properties)
    assert sitk.ReadImage(str(tmp_path / "seg.nii.gz")).GetSize() == (4, 3, 2)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_vector_image_is_channels(tmp_path, ending):
    array = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    file = write(tmp_path / f"rgb{ending}", array, vector=True)
    data, properties = SimpleITKIO().read_images([file])
    np.testing.assert_array_equal(data, np.moveaxis(array, -1, 0))
    np.testing.assert_allclose(properties["spacing"], [2.5, 0.8, 0.7], rtol=1e-6)
    assert SimpleITKIO().read_header(file).shape == (3, 4, 5, 6)


@pytest.mark.parametrize(("highest", "dtype"), [(254, np.uint8), (255, np.uint16), (256, np.uint16)])
@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient])
def test_type_of_written_labels(tmp_path, reader, highest, dtype):
    file = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    seg = np.zeros((2, 3, 4), np.int64)
    seg[1, 2, 3] = highest
    reader().write_seg(seg, str(tmp_path / "s.nii.gz"), reader().read_images([file])[1])
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "s.nii.gz")))
    assert written.dtype == dtype and written.max() == highest


@pytest.mark.parametrize("label", [-1, 65536])
def test_labels_that_cannot_be_stored_are_refused(tmp_path, label):
    file = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    _, properties = SimpleITKIO().read_images([file])
    with pytest.raises(DatasetError, match=str(label)):
        SimpleITKIO().write_seg(np.full((2, 3, 4), label), str(tmp_path / "s.nii.gz"), properties)
    assert not (tmp_path / "s.nii.gz").exists()


def test_reorient_as_recorded(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    file = write(tmp_path / "a.nii.gz", array, spacing=(0.5, 0.6, 3.0), direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    reader = SimpleITKIOWithReorient()
    data, properties = reader.read_images([file])
    assert data.shape == (1, 2, 4, 3)
    assert properties["sitk_stuff"]["original_orientation"] == "PRS"
    np.testing.assert_allclose(properties["spacing"], [3.0, 0.5, 0.6], rtol=1e-6)
    header = reader.read_header(file)
    assert header.shape == data.shape and header.spacing == pytest.approx(properties["spacing"])
    reader.write_seg(data[0].astype(int), str(tmp_path / "s.nii.gz"), properties)
    image, back = sitk.ReadImage(file), sitk.ReadImage(str(tmp_path / "s.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), array)
    assert back.GetSpacing() == image.GetSpacing() and back.GetSize() == image.GetSize()
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-6)


def test_reorient_several_channels_and_2d(tmp_path):
    image = write(
        tmp_path / "v.mha",
        np.random.default_rng(0).random((2, 3, 4, 3)),
        vector=True,
        direction=(0, -1, 0, 1, 0, 0, 0, 0, 1),
    )
    reader = SimpleITKIOWithReorient()
    assert reader.read_images([image])[0].shape == (3, 2, 4, 3) == reader.read_header(image).shape
    flat = write(tmp_path / "f.mha", np.zeros((3, 4), np.uint8))
    with pytest.raises(DatasetError, match="2D"):
        reader.read_images([flat])
    with pytest.raises(DatasetError, match="2D"):
        reader.read_header(flat)


def test_shapes_are_compared_exactly_and_named(tmp_path):
    first = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    second = write(tmp_path / "b.nii.gz", np.zeros((2, 3, 5), np.int16))
    with pytest.raises(DatasetError, match=r"b\.nii\.gz: shape \[1, 2, 3, 5\].*\[1, 2, 3, 4\].*a\.nii\.gz"):
        SimpleITKIO().read_images([first, second])


def test_spacings_are_compared_and_named(tmp_path):
    first = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    second = write(tmp_path / "b.nii.gz", np.zeros((2, 3, 4), np.int16), spacing=(0.7, 0.8, 2.6))
    with pytest.raises(DatasetError, match=r"spacing \[2\.5999.*differs from \[2\.5, "):
        SimpleITKIO().read_images([first, second])


def test_different_origins_are_warned_about(tmp_path, caplog):
    first = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))
    second = write(tmp_path / "b.nii.gz", np.zeros((2, 3, 4), np.int16), origin=(3.0, -4.0, 6.5))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        SimpleITKIO().read_images([first, second])
    assert "origin" in caplog.text and "6.5" in caplog.text


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_labels_are_read_as_integers(tmp_path, dtype):
    file = write(tmp_path / "s.nii.gz", (np.arange(24) * 10).reshape(2, 3, 4).astype(dtype))
    seg, _ = SimpleITKIO().read_seg(file)
    assert seg.shape == (1, 2, 3, 4) and seg.dtype.kind in "iu" and seg.dtype.itemsize <= 2 and seg.flags.writeable
    np.testing.assert_array_equal(seg.ravel(), np.arange(24) * 10)


@pytest.mark.parametrize("strange", [0.5, np.nan])
def test_labels_that_are_no_whole_numbers(tmp_path, strange):
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 1, 1] = strange
    with pytest.raises(DatasetError, match=r"s\.nii\.gz: (0\.5|NaN)"):
        SimpleITKIO().read_seg(write(tmp_path / "s.nii.gz", array))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -4, -20])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_truncated_file_is_one_line(tmp_path, keep, ending):
    if keep == -4 and ending in (".mha", ".nrrd"):
        pytest.skip("a missing checksum of these formats is nothing ITK notices")
    array = np.random.default_rng(0).integers(0, 2000, (20, 30, 40)).astype(np.int16)
    file = Path(write(tmp_path / f"a{ending}", array))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep) if keep == 0.5 else keep])
    with pytest.raises(DatasetError, match=rf"a\{ending}") as error:
        SimpleITKIO().read_images([str(file)])
    assert "\n" not in str(error.value)
    assert not re.search("0x[0-9a-f]{6}|No such file", str(error.value))


def test_damaged_byte_is_noticed(tmp_path):
    array = np.random.default_rng(0).integers(0, 2000, (20, 30, 40)).astype(np.int16)
    file = Path(write(tmp_path / "a.nii.gz", array))
    content = bytearray(file.read_bytes())
    content[-5000] ^= 255
    file.write_bytes(content)
    with pytest.raises(DatasetError, match="damaged"):
        SimpleITKIO().read_images([str(file)])


def test_missing_file(tmp_path):
    for name in ("a.nii.gz", "a.mha"):
        with pytest.raises(DatasetError, match=name):
            SimpleITKIO().read_images([str(tmp_path / name)])


def test_gzip_in_several_streams(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    file = Path(write(tmp_path / "a.nii", array))
    content = file.read_bytes()
    parts = tmp_path / "b.nii.gz"
    parts.write_bytes(gzip.compress(content[:360]) + gzip.compress(content[360:]))
    np.testing.assert_array_equal(SimpleITKIO().read_images([str(parts)])[0][0], array)


def test_scaled_and_big_endian_files_equal_simpleitk(tmp_path):
    nib = pytest.importorskip("nibabel")
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    scaled = nib.Nifti1Image(array, np.diag([1, 2, 3, 1]))
    scaled.header.set_slope_inter(2.0, -7.0)
    swapped = nib.Nifti1Image(array, np.diag([1, 2, 3, 1]), nib.Nifti1Header(endianness=">"))
    for name, image in (("scaled", scaled), ("swapped", swapped)):
        file = str(tmp_path / f"{name}.nii.gz")
        nib.save(image, file)
        data, properties = SimpleITKIO().read_images([file])
        np.testing.assert_array_equal(data[0], sitk.GetArrayFromImage(sitk.ReadImage(file)))
        assert properties["spacing"] == [3, 2, 1]
    assert nifti.read_header(str(tmp_path / "scaled.nii.gz")).scaled


def test_directions_that_are_no_numbers_are_refused(tmp_path):
    file = tmp_path / "a.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(file))
    content = bytearray(file.read_bytes())
    struct.pack_into("<f", content, 280, float("nan"))  # srow_x[0]
    file.write_bytes(content)
    for read in (SimpleITKIO().read_header, lambda name: SimpleITKIO().read_images([name])):
        with pytest.raises(DatasetError, match="directions of its axes .* are NaN or infinite"):
            read(str(file))


def test_sheared_image_names_the_way_out(tmp_path):
    nib = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[0, 1] = 0.3
    file = str(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine), file)
    with pytest.raises(DatasetError, match="not orthonormal.*NibabelIO"):
        SimpleITKIO().read_images([file])


def test_nan_becomes_zero_as_in_itk_but_can_be_seen(tmp_path, caplog):
    array = np.ones((2, 3, 4), np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    file = write(tmp_path / "a.nii.gz", array)
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        data, _ = SimpleITKIO().read_images([file])
    np.testing.assert_array_equal(data[0], sitk.GetArrayFromImage(sitk.ReadImage(file)))
    assert "2 voxels" in caplog.text
    assert np.isnan(SimpleITKIO().read_images_unaltered([file])[0][0, 0, 0, 0])


def test_properties_of_another_reader_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="reader"):
        SimpleITKIO().write_seg(np.zeros((1, 2, 3), int), str(tmp_path / "s.nii.gz"), {"spacing": [1, 1, 1]})


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_every_orientation_comes_back(tmp_path, reader, ending):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            direction = (np.eye(3)[list(axes)] * signs).ravel().tolist()
            file = write(tmp_path / f"a{ending}", array, direction=direction)
            seg, properties = reader().read_seg(file)
            assert reader().read_header(file) == (seg.shape, tuple(properties["spacing"]))
            reader().write_seg(seg[0], str(tmp_path / f"s{ending}"), properties)
            image, written = sitk.ReadImage(file), sitk.ReadImage(str(tmp_path / f"s{ending}"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(written), array)
            for there, here in zip(geometry(image), geometry(written), strict=True):
                np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-9)


def geometry(image):
    return image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient])
def test_images_that_are_neither_volumes_nor_channels(tmp_path, reader):
    nib = pytest.importorskip("nibabel")
    five, complex_ = str(tmp_path / "five.nii.gz"), str(tmp_path / "complex.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 5, 2), np.uint8), np.eye(4)), five)
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.complex64), np.eye(4)), complex_)
    for file, reason in ((five, "5 dimensions"), (complex_, "complex numbers")):
        with pytest.raises(DatasetError, match=reason) as error:
            reader().read_images([file])
        assert "\n" not in str(error.value)
    with pytest.raises(DatasetError, match="5 dimensions"):
        reader().read_header(five)
    colours = write(tmp_path / "rgb.mha", np.zeros((2, 3, 4, 3), np.uint8), vector=True)
    with pytest.raises(DatasetError, match=r"rgb\.mha: 3 values per voxel"):
        reader().read_seg(colours)


def test_nifti_2_names_the_reader_that_can(tmp_path):
    nib = pytest.importorskip("nibabel")
    file = str(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti2Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), file)
    with pytest.raises(DatasetError, match='NIfTI-2.*"NibabelIO"'):
        SimpleITKIO().read_images([file])


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_spacing_is_in_millimetres_in_the_header_too(tmp_path, unit, scale):
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.diag([1, 2, 3, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    file = str(tmp_path / "a.nii.gz")
    assert SimpleITKIO().read_images([file])[1]["spacing"] == pytest.approx([3 * scale, 2 * scale, scale])
    assert SimpleITKIO().read_header(file).spacing == pytest.approx((3 * scale, 2 * scale, scale))


def test_negative_and_zero_spacing_in_a_header(tmp_path):
    nib = pytest.importorskip("nibabel")
    for step, expected in ((-0.5, 0.5), (0, 1)):
        image = nib.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.diag([0.5, 2, 3, 1]))
        file = tmp_path / "a.nii"
        nib.save(image, file)
        content = bytearray(file.read_bytes())
        content[80:84] = np.float32(step).tobytes()
        file.write_bytes(content)
        for reader in (SimpleITKIO, SimpleITKIOWithReorient):
            seg, properties = reader().read_seg(str(file))
            assert properties["spacing"] == [3, 2, expected] == list(reader().read_header(str(file)).spacing)
            reader().write_seg(seg[0], str(tmp_path / "s.nii.gz"), properties)
            back = sitk.ReadImage(str(tmp_path / "s.nii.gz"))
            itself = sitk.ReadImage(str(file))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(itself))
            for there, here in zip(geometry(itself), geometry(back), strict=True):
                np.testing.assert_allclose(here, there, atol=1e-6)


def test_properties_that_upstream_pickled_are_written(tmp_path):
    """Keys as recorded from upstream 2.8.1; a 4D image keeps four entries there, and there is no header."""
    stuff = {"spacing": (0.5, 0.6, 3.0, 1.0), "origin": (1.0, 2.0, 3.0, 0.0), "direction": tuple(np.eye(4).ravel())}
    properties = {"sitk_stuff": stuff, "spacing": [np.float64(3), np.float64(0.6), np.float64(0.5)]}
    SimpleITKIO().write_seg(np.ones((2, 3, 4), int), str(tmp_path / "s.nii.gz"), properties)
    written = sitk.ReadImage(str(tmp_path / "s.nii.gz"))
    assert written.GetSize() == (4, 3, 2)
    np.testing.assert_allclose(written.GetSpacing(), (0.5, 0.6, 3.0), rtol=1e-6)
    assert written.GetOrigin() == (1, 2, 3)
