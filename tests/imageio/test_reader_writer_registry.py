"""Choice of a reader: the recorded table of spec 01, 3.2, and what goes beyond it."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_lite.exceptions import DatasetError, ExtensionError
from nnunet_lite.imageio.reader_writer_registry import (
    READERS_BY_ENDING,
    determine_reader_writer_from_dataset_json,
    determine_reader_writer_from_file_ending,
    find_reader_writer,
)

WITHOUT_EXAMPLE = {
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tif": "NaturalImage2DIO",
    ".tiff": "Tiff3DIO",
    ".nii.gz": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".NII.GZ": "SimpleITKIO",
}


@pytest.mark.parametrize(("ending", "name"), WITHOUT_EXAMPLE.items())
def test_choice_without_example(ending, name):
    assert determine_reader_writer_from_file_ending(ending).__name__ == name


@pytest.mark.parametrize("ending", [".jpg", ".mhd"])
def test_unknown_ending_lists_the_known(ending):
    with pytest.raises(DatasetError, match=rf"\{ending}.*\.nii\.gz"):
        determine_reader_writer_from_file_ending(ending)


@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        (".jpg", "Lossy.*png"),
        (".JPEG", "Lossy.*png"),
        (".dcm", "DICOM.*dcm2niix"),
        (".mhd", ".mha"),
        ("nii.gz", "with its dot"),
        (".xyz", "reader of your own"),
    ],
)
def test_unknown_ending_says_what_to_do(ending, advice):
    with pytest.raises(DatasetError, match=advice):
        determine_reader_writer_from_file_ending(ending)


def test_image_that_simpleitk_refuses_is_left_to_nibabel(tmp_path):
    nib = pytest.importorskip("nibabel")
    file = str(tmp_path / "a_0000.nii.gz")
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    for image in (
        nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), sheared),
        nib.Nifti2Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)),
    ):
        nib.save(image, file)
        assert determine_reader_writer_from_file_ending(".nii.gz", file).__name__ == "NibabelIO"


@pytest.mark.parametrize(("name", "endings"), READERS_BY_ENDING)
def test_table_agrees_with_the_classes(name, endings):
    assert find_reader_writer(name).supported_file_endings == endings


@pytest.mark.parametrize(
    ("shape", "photometric", "name"),
    [
        ((5, 6, 7), "minisblack", "Tiff3DIO"),
        ((5, 6, 3), "minisblack", "Tiff3DIO"),
        ((5, 6), "minisblack", "NaturalImage2DIO"),
        ((5, 6, 3), "rgb", "NaturalImage2DIO"),
        ((3, 6, 7), "minisblack", "Tiff3DIO"),
    ],
)
def test_tif_is_decided_by_its_tags(tmp_path, shape, photometric, name):
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros(shape, np.uint8), photometric=photometric)
    chosen = determine_reader_writer_from_file_ending(".tif", str(tmp_path / "a_0000.tif"))
    assert chosen.__name__ == name


def test_unreadable_example_is_named(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"SimpleITKIO.*a\.mha"):
        determine_reader_writer_from_file_ending(".mha", str(tmp_path / "a.mha"))


def test_nonmatching_file_name_is_tried_if_allowed(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError):
        determine_reader_writer_from_file_ending(".xyz", str(tmp_path / "a.png"))
    chosen = determine_reader_writer_from_file_ending(".xyz", str(tmp_path / "a.png"), allow_nonmatching_filename=True)
    assert chosen.__name__ == "NaturalImage2DIO"


def test_dataset_json_may_name_the_reader(caplog):
    document = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "SimpleITKIOWithReorient"}
    assert determine_reader_writer_from_dataset_json(document).__name__ == "SimpleITKIOWithReorient"
    document["overwrite_image_reader_writer"] = "None"
    assert determine_reader_writer_from_dataset_json(document).__name__ == "SimpleITKIO"
    document["overwrite_image_reader_writer"] = "SimpleITKOI"
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        assert determine_reader_writer_from_dataset_json(document).__name__ == "SimpleITKIO"
    assert "SimpleITKOI" in caplog.text
    with pytest.raises(DatasetError, match="file_ending"):
        determine_reader_writer_from_dataset_json({})


def test_unknown_name():
    with pytest.raises(ExtensionError, match="NibabelIO"):
        find_reader_writer("NibabelOI")


def test_reader_of_ones_own_with_upstreams_methods_only(tmp_path, monkeypatch):
    (tmp_path / "my_reader.py").write_text(
        "import numpy as np\n"
        "from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter\n"
        "class NumpyIO(BaseReaderWriter):\n"
        "    supported_file_endings = ['.npy']\n"
        "    def read_images(self, image_fnames):\n"
        "        return np.stack([np.load(f) for f in image_fnames]).astype(np.float32), {'spacing': [1, 1, 1]}\n"
        "    def read_seg(self, seg_fname):\n"
        "        return self.read_images((seg_fname,))\n"
        "    def write_seg(self, seg, output_fname, properties):\n"
        "        np.save(output_fname, seg)\n"
    )
    np.save(tmp_path / "a_0000.npy", np.zeros((3, 4, 5)))
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    reader = determine_reader_writer_from_dataset_json(
        {"file_ending": ".npy", "overwrite_image_reader_writer": "NumpyIO"}
    )()
    assert reader.read_header(str(tmp_path / "a_0000.npy")) == ((1, 3, 4, 5), (1, 1, 1))
    assert reader.read_images_unaltered([str(tmp_path / "a_0000.npy")])[0].shape == (1, 3, 4, 5)


def test_looking_at_headers_does_not_load_simpleitk(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(tmp_path / "a.nii.gz"))
    code = (
        "import sys\n"
        "from nnunet_lite.imageio.reader_writer_registry import determine_reader_writer_from_file_ending as choose\n"
        f"reader = choose('.nii.gz', {str(tmp_path / 'a.nii.gz')!r})\n"
        "assert not {'SimpleITK', 'torch', 'scipy', 'skimage', 'nibabel'} & set(sys.modules), 'too much'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
