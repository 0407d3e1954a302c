"""Each of the six readers from raw files to a written prediction; perfect logits must come out as the label map."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from helpers.commands import succeed
from helpers.datasets import make_case
from PIL import Image

from nnunet_lite.imageio.reader_writer_registry import find_reader_writer
from nnunet_lite.inference.export_prediction import export_prediction_from_logits
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class

SPACING = (1.5, 0.8, 0.8)
# x, y, z of the file in space: turned, mirrored and a little oblique, another one for every case
DIRECTIONS = [
    np.eye(3),
    np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]),
    np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, -1]]),
]
READERS = [
    ("SimpleITKIO", ".nii.gz"),
    ("SimpleITKIO", ".nrrd"),
    ("SimpleITKIOWithReorient", ".mha"),
    ("SimpleITKIOWithReorient", ".nii.gz"),
    ("NibabelIO", ".nii"),
    ("NibabelIOWithReorient", ".nii.gz"),
    ("Tiff3DIO", ".tif"),
    ("NaturalImage2DIO", ".png"),
    ("NaturalImage2DIO", ".tif"),
]


def _write(file: Path, array: np.ndarray, reader: str, direction: np.ndarray) -> None:
    if reader == "NaturalImage2DIO":
        Image.fromarray(array.astype(np.uint8)).save(file)
    elif reader == "Tiff3DIO":
        tifffile.imwrite(file, array, photometric="minisblack")
        sidecar = file.name.removesuffix(".tif").removesuffix("_0000")
        file.with_name(f"{sidecar}.json").write_text(json.dumps({"spacing": SPACING}))
    else:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING[::-1])
        image.SetOrigin((10.0, -20.0, 5.5))
        image.SetDirection(direction.ravel().tolist())
        sitk.WriteImage(image, str(file), True)


def _dataset(raw: Path, reader: str, ending: str) -> Path:
    rng = np.random.default_rng(0)
    folder = raw / "Dataset007_Readers"
    flat = reader == "NaturalImage2DIO"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, direction in enumerate(DIRECTIONS):
        images, labels = make_case((24, 28) if flat else (10, 24, 28), 1, (1, 2), rng)
        labels[..., :5, :9] = 1  # a corner: nothing may come back mirrored
        _write(folder / "imagesTr" / f"case_{number}_0000{ending}", images[0], reader, direction)
        _write(folder / "labelsTr" / f"case_{number}{ending}", labels, reader, direction)
    document = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "outer": 1, "inner": 2},
        "numTraining": 3,
        "file_ending": ending,
        "overwrite_image_reader_writer": reader,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def _assert_same_place(reader: str, label: Path, written: Path) -> None:
    if reader in ("Tiff3DIO", "NaturalImage2DIO"):
        sidecars = [file.with_suffix(".json") for file in (label, written)]
        assert [file.exists() for file in sidecars] == [reader == "Tiff3DIO"] * 2
        return
    before, after = sitk.ReadImage(str(label)), sitk.ReadImage(str(written))
    assert before.GetSize() == after.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(after, name)(), getattr(before, name)(), rtol=1e-5, atol=1e-6)
    if ".nii" in label.name:
        np.testing.assert_allclose(nib.load(written).affine, nib.load(label).affine, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("reader", "ending"), READERS)
def test_from_raw_files_to_a_prediction(
    nnunet_folders: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str, ending: str
) -> None:
    folder = _dataset(nnunet_folders.raw, reader, ending)
    configuration = "2d" if reader == "NaturalImage2DIO" else "3d_fullres"
    quietly = ("-np", 0, "-npfp", 0, "--no_pbar", "--verify_dataset_integrity")
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        succeed("nnUNetv2_plan_and_preprocess", "-d", 7, "-c", configuration, *quietly)
    assert "spacing 1, 1, 1 is assumed" not in caplog.text

    preprocessed = nnunet_folders.preprocessed / folder.name
    plans = PlansManager(json.loads((preprocessed / "nnUNetPlans.json").read_text()))
    assert type(plans.image_reader_writer_class()) is find_reader_writer(reader)
    references = {file.name for file in (preprocessed / "gt_segmentations").iterdir()}
    assert references == {file.name for file in (folder / "labelsTr").iterdir()}

    manager = plans.get_configuration(configuration)
    cases = preprocessed / manager.data_identifier
    dataset = infer_dataset_class(cases)(cases)
    for identifier in dataset.identifiers:
        _, seg, _, properties = dataset[identifier]
        perfect = torch.nn.functional.one_hot(torch.as_tensor(np.asarray(seg[0])).long().clamp(min=0), 3) * 10.0
        export_prediction_from_logits(
            perfect.movedim(-1, 0), properties, manager, plans, folder / "dataset.json", tmp_path / identifier
        )
        label, written = folder / "labelsTr" / f"{identifier}{ending}", tmp_path / f"{identifier}{ending}"
        expected, found = (find_reader_writer(reader)().read_seg(str(file))[0] for file in (label, written))
        assert expected.shape == found.shape and np.mean(expected == found) > 0.97  # one case is resampled
        _assert_same_place(reader, label, written)
