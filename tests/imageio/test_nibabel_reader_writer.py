"""NibabelIO and NibabelIOWithReorient: same arrays as SimpleITKIO, same affine on the way out."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.utilities.files import load_pickle, save_pickle

AFFINES = {
    "diagonal": np.diag([0.5, 0.6, 3.0, 1]),
    "flipped": np.array([[-0.5, 0, 0, 10], [0, -0.6, 0, 20], [0, 0, 3.0, -5], [0, 0, 0, 1.0]]),
    "permuted": np.array([[0, 0, 2.0, 1], [0.7, 0, 0, 2], [0, -0.9, 0, 3], [0, 0, 0, 1.0]]),
}


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_array_and_spacing_equal_those_of_simpleitk(tmp_path, affine):
    file = write(tmp_path / "a.nii.gz", np.arange(24, dtype=np.int16).reshape(4, 3, 2), affine)
    data, properties = NibabelIO().read_images([file])
    expected, expected_properties = SimpleITKIO().read_images([file])
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_allclose(properties["spacing"], expected_properties["spacing"], rtol=1e-6)
    assert data.dtype == np.float32 and data.shape == (1, 2, 3, 4) and data.flags.c_contiguous
    np.testing.assert_array_equal(properties["nibabel_stuff"]["original_affine"], nib.load(file).affine)
    assert NibabelIO().read_header(file) == (data.shape, tuple(properties["spacing"]))


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_round_trip(tmp_path, reader, affine, ending):
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    file = write(tmp_path / f"a{ending}", array, affine)
    seg, properties = reader().read_seg(file)
    assert reader().read_header(file) == (seg.shape, tuple(properties["spacing"]))
    reader().write_seg(seg[0], str(tmp_path / f"s{ending}"), properties)
    written = nib.load(tmp_path / f"s{ending}")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), array)
    np.testing.assert_allclose(written.affine, nib.load(file).affine, atol=1e-6)


def test_reoriented_array_is_canonical(tmp_path):
    file = write(tmp_path / "a.nii.gz", np.arange(24, dtype=np.int16).reshape(4, 3, 2), AFFINES["permuted"])
    data, properties = NibabelIOWithReorient().read_images([file])
    canonical = nib.as_closest_canonical(nib.load(file))
    np.testing.assert_array_equal(data[0], np.asanyarray(canonical.dataobj).T)
    np.testing.assert_allclose(properties["spacing"], [0.9, 0.7, 2.0], rtol=1e-6)
    assert set(properties["nibabel_stuff"]) == {"original_affine", "reoriented_affine"}


@pytest.mark.parametrize(("highest", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_type_of_written_labels(tmp_path, highest, dtype):
    file = write(tmp_path / "a.nii.gz", np.zeros((4, 3, 2), np.int16), np.eye(4))
    NibabelIO().write_seg(np.full((2, 3, 4), highest), str(tmp_path / "s.nii.gz"), NibabelIO().read_seg(file)[1])
    assert nib.load(tmp_path / "s.nii.gz").get_data_dtype() == dtype


def test_truncated_file_is_one_line(tmp_path):
    array = np.random.default_rng(0).integers(0, 2000, (20, 30, 40)).astype(np.int16)
    for ending in (".nii", ".nii.gz"):
        file = Path(write(tmp_path / f"a{ending}", array, np.eye(4)))
        content = file.read_bytes()
        for keep in (0, 100, len(content) // 2, len(content) - 4):
            file.write_bytes(content[:keep])
            with pytest.raises(DatasetError, match=rf"a\{ending}") as error:
                NibabelIO().read_images([str(file)])
            assert "\n" not in str(error.value)


def test_2d_and_missing_files_are_refused(tmp_path):
    file = write(tmp_path / "a.nii.gz", np.zeros((4, 3), np.int16), np.eye(4))
    with pytest.raises(DatasetError, match="SimpleITKIO"):
        NibabelIO().read_images([file])
    with pytest.raises(DatasetError, match="does not exist"):
        NibabelIO().read_images([str(tmp_path / "b.nii.gz")])


def test_properties_of_another_reader_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="reader"):
        NibabelIO().write_seg(np.zeros((1, 2, 3), int), str(tmp_path / "s.nii.gz"), {"spacing": [1, 1, 1]})


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient])
def test_channels_of_every_kind_equal_those_of_simpleitk(tmp_path, reader):
    channels = np.arange(72, dtype=np.uint8).reshape(4, 3, 2, 3)
    colours = channels.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    for array in (channels, channels[:, :, :, None], colours):
        file = write(tmp_path / "a.nii.gz", array, np.diag([0.5, 0.6, 3.0, 1]))
        data, properties = reader().read_images([file])
        np.testing.assert_array_equal(data, channels.transpose(3, 2, 1, 0))
        assert reader().read_header(file) == (data.shape, tuple(properties["spacing"]))
    trailing = write(tmp_path / "t.nii.gz", channels[..., :1, None], np.eye(4))
    assert reader().read_seg(trailing)[0].shape == (1, 2, 3, 4)


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient])
def test_images_that_are_neither_volumes_nor_channels(tmp_path, reader):
    file = write(tmp_path / "five.nii.gz", np.zeros((2, 3, 4, 5, 2), np.uint8), np.eye(4))
    with pytest.raises(DatasetError, match="5 dimensions"):
        reader().read_images([file])
    file = write(tmp_path / "complex.nii.gz", np.zeros((2, 3, 4), np.complex64), np.eye(4))
    with pytest.raises(DatasetError, match="complex numbers"):
        reader().read_images([file])


def test_nifti_2_can_be_read_and_its_label_map_written(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    nib.save(nib.Nifti2Image(array, AFFINES["permuted"]), tmp_path / "a.nii.gz")
    seg, properties = NibabelIO().read_seg(str(tmp_path / "a.nii.gz"))
    assert "nifti_header" not in properties
    NibabelIO().write_seg(seg[0], str(tmp_path / "s.nii.gz"), properties)
    written = nib.load(tmp_path / "s.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), array)
    np.testing.assert_allclose(written.affine, AFFINES["permuted"], atol=1e-6)


def test_properties_that_upstream_pickled_are_written(tmp_path):
    properties = {"nibabel_stuff": {"original_affine": AFFINES["flipped"]}, "spacing": [3.0, 0.6, 0.5]}
    save_pickle(properties, tmp_path / "case.pkl")
    NibabelIO().write_seg(np.ones((2, 3, 4), int), str(tmp_path / "s.nii.gz"), load_pickle(tmp_path / "case.pkl"))
    np.testing.assert_allclose(nib.load(tmp_path / "s.nii.gz").affine, AFFINES["flipped"], atol=1e-6)
