"""A label map lies where its image lies: through every NIfTI reader, for nibabel and for ITK, header included."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lite.exceptions import StorageError
from nnunet_lite.imageio import nifti_labels
from nnunet_lite.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunet_lite.imageio.nifti_labels import write_labels
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
LABELS = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
# What says where the voxels lie, in the bytes of a header: pixdim, units; codes, quaternion, offsets, affine
PLACEMENT = [slice(76, 92), slice(123, 124), slice(252, 328)]


def rotation(*angles):
    matrix = np.eye(3)
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        turn = np.eye(3)
        turn[[i, j, i, j], [i, j, j, i]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def affine_of(directions, spacing=(0.5, 0.6, 3.0), origin=(10.5, -20.25, 33.125)):
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


OBLIQUE = affine_of(rotation(0.2, -0.3, 0.1))
STRAIGHT = [
    affine_of(np.eye(3)[list(axes)] * signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
TILTED = [
    affine_of(rotation(*angles) * mirrored)
    for angles in ((0.1, 0, 0), (0.2, -0.3, 0.1), (1.0, 0.5, -2.0), (3.0, 0.4, 0.3), (0.78, 0.78, 0.78))
    for mirrored in ((1, 1, 1), (-1, 1, 1))
]


def image(path: Path, qform=(OBLIQUE, 1), sform=(OBLIQUE, 1), header=None) -> str:
    made = nib.Nifti1Image(LABELS, None, header)
    made.header.set_qform(*qform)
    made.header.set_sform(*sform)
    nib.save(made, path)
    return str(path)


def written_back(reader, file: str, output: Path) -> str:
    seg, properties = reader().read_seg(file)
    assert reader().read_header(file) == (seg.shape, pytest.approx(tuple(properties["spacing"])))
    properties.update(reader().properties_for_writing(file))
    reader().write_seg(seg[0], str(output), properties)
    return str(output)


def assert_same_place(file: str, output: str) -> None:
    before, after = nib.load(file), nib.load(output)
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms(), rtol=1e-5)
    before, after = sitk.ReadImage(file), sitk.ReadImage(output)
    assert after.GetSize() == before.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(after, name)(), getattr(before, name)(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("affines", [STRAIGHT, TILTED], ids=["straight", "tilted"])
def test_every_orientation_comes_back(tmp_path, reader, affines):
    for affine in affines:
        file = image(tmp_path / "a.nii", (affine, 1), (affine, 1))
        assert_same_place(file, written_back(reader, file, tmp_path / "s.nii"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("affines", [STRAIGHT, TILTED], ids=["straight", "tilted"])
def test_every_orientation_comes_back_without_the_header(tmp_path, reader, affines):
    """As with properties that upstream has stored."""
    for affine in affines:
        file = image(tmp_path / "a.nii", (affine, 1), (affine, 1))
        seg, properties = reader().read_seg(file)
        reader().write_seg(seg[0], str(tmp_path / "s.nii"), properties)
        assert_same_place(file, str(tmp_path / "s.nii"))


ELSEWHERE = affine_of(rotation(0.5, 0.1, 0.2) * (-1, 1, 1), origin=(0, 0, 1))
FORMS = {
    "both": ((OBLIQUE, 1), (OBLIQUE, 4)),
    "sform only": ((None, 0), (OBLIQUE, 2)),
    "qform only": ((OBLIQUE, 2), (None, 0)),
    "neither": ((None, 0), (None, 0)),
    "two places": ((ELSEWHERE, 1), (OBLIQUE, 4)),
    "two spacings": ((affine_of(rotation(0.2, -0.3, 0.1), (0.5, 0.6, 2.5)), 1), (OBLIQUE, 2)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize("order", "<>")
def test_header_is_kept(tmp_path, reader, forms, unit, order):
    header = nib.Nifti1Header(endianness=order)
    header.set_xyzt_units(unit)
    header["descrip"] = b"a scan"
    file = image(tmp_path / "a.nii", *forms, header)
    output = written_back(reader, file, tmp_path / "s.nii")
    assert_same_place(file, output)
    before, after = (nib.load(name).header for name in (file, output))
    assert after.endianness == "<" and after["descrip"] == b"a scan"
    swapped = before.as_byteswapped("<").binaryblock
    for part in PLACEMENT:
        assert after.binaryblock[part] == swapped[part]


@pytest.mark.parametrize("reader", READERS)
def test_scale_of_the_intensities_is_no_concern_of_the_labels(tmp_path, reader):
    made = nib.Nifti1Image(LABELS.astype(np.int16), OBLIQUE)
    made.header.set_slope_inter(2.0, 7.0)
    made.header["cal_max"], made.header["intent_code"] = 900, 1001
    nib.save(made, tmp_path / "a.nii.gz")
    output = written_back(reader, str(tmp_path / "a.nii.gz"), tmp_path / "s.nii.gz")
    assert_same_place(str(tmp_path / "a.nii.gz"), output)
    header = nib.load(output).header
    assert header.get_slope_inter() == (1, 0) or header.get_slope_inter() == (None, None)
    assert header["cal_max"] == 0 and header["intent_code"] == 0 and header.get_data_dtype() == np.uint8


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("qfac", [-1, 0])
def test_first_entry_of_pixdim(tmp_path, reader, qfac):
    file = Path(image(tmp_path / "a.nii", sform=(None, 0)))
    content = bytearray(file.read_bytes())
    content[76:80] = np.float32(qfac).tobytes()
    file.write_bytes(content)
    assert_same_place(str(file), written_back(reader, str(file), tmp_path / "s.nii"))


@pytest.mark.parametrize("reader", READERS)
def test_geometry_changed_by_the_user_wins(tmp_path, reader):
    file = image(tmp_path / "a.nii.gz")
    seg, properties = reader().read_seg(file)
    if "sitk_stuff" in properties:
        properties["sitk_stuff"]["spacing"] = (0.5, 0.6, 3.01)
    else:
        for key in properties["nibabel_stuff"]:
            properties["nibabel_stuff"][key] = properties["nibabel_stuff"][key] @ np.diag([1, 1, 3.01 / 3, 1])
    reader().write_seg(seg[0], str(tmp_path / "s.nii.gz"), properties)
    np.testing.assert_allclose(sitk.ReadImage(str(tmp_path / "s.nii.gz")).GetSpacing(), (0.5, 0.6, 3.01), rtol=1e-5)


@pytest.mark.parametrize("reader", READERS)
def test_upper_case_endings(tmp_path, reader):
    file = Path(image(tmp_path / "a.nii.gz"))
    upper = file.rename(tmp_path / "A.NII.GZ")
    output = Path(written_back(reader, str(upper), tmp_path / "S.NII.GZ"))
    assert_same_place(str(upper.rename(file)), str(output.rename(tmp_path / "s.nii.gz")))


def test_2d_image(tmp_path):
    made = sitk.GetImageFromArray(LABELS[..., 0])
    made.SetSpacing((0.5, 0.7))
    made.SetOrigin((3, -4))
    made.SetDirection((0, -1, 1, 0))
    sitk.WriteImage(made, str(tmp_path / "a.nii.gz"))
    output = written_back(SimpleITKIO, str(tmp_path / "a.nii.gz"), tmp_path / "s.nii.gz")
    assert_same_place(str(tmp_path / "a.nii.gz"), output)
    assert nib.load(output).header.binaryblock[252:328] == nib.load(tmp_path / "a.nii.gz").header.binaryblock[252:328]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_large_labels_of_several_blocks(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(nifti_labels, "_BLOCK", 100)
    labels = np.random.default_rng(0).integers(0, 60000, (7, 8, 9)).astype(np.uint16)
    write_labels(labels, OBLIQUE, str(tmp_path / f"s{ending}"))
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / f"s{ending}").dataobj), labels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"s{ending}"))).T, labels)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, ending):
    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        return opened(Path("/dev/full") if "w" in mode else self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    labels = np.random.default_rng(0).integers(0, 200, (200, 300, 4)).astype(np.uint8)
    with pytest.raises(StorageError, match=f"s{ending} was not written"):
        write_labels(labels, OBLIQUE, str(tmp_path / f"s{ending}"))
    assert list(tmp_path.iterdir()) == []
