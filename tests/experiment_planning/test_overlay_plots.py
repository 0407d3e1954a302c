"""Pictures of whole datasets: raw and preprocessed, gray and colour, drawn once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import complaint, succeed
from helpers.datasets import make_dataset, make_fixture_b, write_image
from PIL import Image

from nnunet_lite.exceptions import ArgumentError, DatasetError, PlansError
from nnunet_lite.experiment_planning.overlay_picture import generate_overlay, select_slice_to_plot2, windowed
from nnunet_lite.experiment_planning.overlay_plots import (
    Run,
    generate_overlays_from_preprocessed,
    generate_overlays_from_raw,
)
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

COMMAND = "nnUNetv2_plot_overlay_pngs"
HERE = Run(0, show_progress=False)


def _picture(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _array(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_raw_pictures_show_the_slice_and_the_channel_asked_for(nnunet_folders, tmp_path):
    folder = make_dataset(nnunet_folders.raw, 21, n=2, channels=("T1", "T2"))
    succeed(COMMAND, "-d", 21, "-o", tmp_path / "out", "--use_raw", "-np", 0, "-channel_idx", 1)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["case_00.png", "case_01.png"]
    image = _array(folder / "imagesTr" / "case_01_0001.nii.gz")
    seg = _array(folder / "labelsTr" / "case_01.nii.gz")
    z = select_slice_to_plot2(image, seg)
    expected = generate_overlay(windowed(image[z]), seg[z])
    assert np.array_equal(_picture(tmp_path / "out" / "case_01.png"), expected)


def test_what_is_drawn_is_kept_until_something_changes(nnunet_folders, tmp_path):
    folder = make_dataset(nnunet_folders.raw, 21, n=2)

    def drawn(run: Run = HERE, **settings) -> list[str]:
        for file in tmp_path.glob("*.png"):
            file.chmod(0o600)
        before = {file.name: file.stat().st_ino for file in tmp_path.glob("*.png")}
        generate_overlays_from_raw(21, tmp_path, run=run, **settings)
        return sorted(file.name for file in tmp_path.glob("*.png") if before.get(file.name) != file.stat().st_ino)

    both = ["case_00.png", "case_01.png"]
    assert drawn() == both
    assert drawn() == []
    assert drawn(HERE._replace(overwrite=True)) == both
    assert drawn(overlay_intensity=0.3) == both
    assert drawn(HERE._replace(outlines=True)) == both
    (tmp_path / "case_01.png").write_bytes(b"damaged")
    assert drawn(HERE._replace(outlines=True)) == ["case_01.png"]
    label = folder / "labelsTr" / "case_00.nii.gz"
    write_image(label, np.flip(_array(label), 0).copy(), (1, 1, 1))
    assert drawn(HERE._replace(outlines=True)) == ["case_00.png"]


def test_colour_images_are_shown_in_their_colours_unless_another_channel_is_asked_for(nnunet_folders, tmp_path):
    folder = make_fixture_b(nnunet_folders.raw, 22)
    generate_overlays_from_raw(22, tmp_path / "colour", run=HERE, overlay_intensity=0)
    generate_overlays_from_raw(22, tmp_path / "green", run=HERE, channel_idx=1)
    with Image.open(folder / "imagesTr" / "case_00_0000.png") as image:
        assert np.abs(_picture(tmp_path / "colour" / "case_00.png") - np.asarray(image).astype(int)).max() <= 1
    green = _picture(tmp_path / "green" / "case_00.png")
    assert (green[0] == green[0][:, :1]).all()


def test_preprocessed_pictures(nnunet_folders, tmp_path):
    make_dataset(nnunet_folders.raw, 23, n=2, shape=(12, 40, 36), vary=0)
    succeed("nnUNetv2_plan_and_preprocess", "-d", 23, "-c", "2d", "3d_fullres", "-np", 1, "-npfp", 0)
    succeed(COMMAND, "-d", 23, "-o", tmp_path / "default", "-np", 0)
    succeed(COMMAND, "-d", 23, "-o", tmp_path / "2d", "-np", 0, "-c", "2d", "--legend", "--contours")
    dataset = nnUNetDatasetBlosc2(nnunet_folders.preprocessed / "Dataset023_Tiny" / "nnUNetPlans_3d_fullres")
    data, seg, _ = dataset.load_arrays("case_00")
    labels = np.maximum(seg[0], 0)
    z = select_slice_to_plot2(labels, labels)
    expected = generate_overlay(windowed(data[0, z]), labels[z])
    assert np.array_equal(_picture(tmp_path / "default" / "case_00.png"), expected)
    assert _picture(tmp_path / "2d" / "case_00.png").shape[0] == 660
    with pytest.raises(PlansError, match="3d_lowres"):
        generate_overlays_from_preprocessed(23, tmp_path, configuration="3d_lowres", run=HERE)


def test_preprocessed_colour_images(nnunet_folders, tmp_path):
    make_fixture_b(nnunet_folders.raw, 24)
    document = nnunet_folders.raw / "Dataset024_Tiny2D" / "dataset.json"
    document.write_text(document.read_text().replace("rgb_to_0_1", "B"))
    succeed("nnUNetv2_plan_and_preprocess", "-d", 24, "-c", "2d", "-np", 1, "-npfp", 0)
    succeed(COMMAND, "-d", 24, "-o", tmp_path, "-np", 0)
    picture = _picture(tmp_path / "case_00.png")
    assert picture.shape == (64, 80, 3) and (picture[..., 0] != picture[..., 1]).any()


def test_a_case_that_cannot_be_drawn_is_named_and_the_others_are_drawn(nnunet_folders, tmp_path):
    folder = make_dataset(nnunet_folders.raw, 25, n=3)
    label = folder / "labelsTr" / "case_01.nii.gz"
    write_image(label, np.zeros((3, 4, 5), np.uint8), (1, 1, 1))
    with pytest.raises(DatasetError, match=r"case_01.*\[3, 4, 5\]; they must be equal") as error:
        generate_overlays_from_raw(25, tmp_path, run=HERE)
    assert "\n" not in str(error.value)
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["case_00.png", "case_02.png"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["-d", 26, "--use_raw", "-channel_idx", 1], "channel_idx is 1, but the dataset has the channels 0 to 0"),
        (["-d", 26, "--use_raw", "-channel_idx", -1], "channel_idx is -1"),
        (["-d", 26, "--use_raw", "-overlay_intensity", -1], "overlay_intensity is -1.0"),
        (["-d", 26, "--use_raw", "-overlay_intensity", "nan"], "overlay_intensity is nan"),
        (["-d", 26], "has no plans 'nnUNetPlans'"),
        (["-d", 27, "--use_raw"], "There is no dataset with id 27"),
        (["-d", 26, "--use_raw", "-np", -1], "-1 processes"),
    ],
)
def test_wrong_values_are_one_line_and_draw_nothing(nnunet_folders, tmp_path, capfd, flags, named):
    make_dataset(nnunet_folders.raw, 26, n=1)
    assert named in complaint(capfd, COMMAND, "-o", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_pictures_into_a_file(nnunet_folders, tmp_path):
    make_dataset(nnunet_folders.raw, 28, n=1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Exception, match="is a file, expected a folder"):
        generate_overlays_from_raw(28, tmp_path / "out", run=HERE)
    with pytest.raises(ArgumentError):
        generate_overlays_from_raw(28, tmp_path, channel_idx=3, run=HERE)
