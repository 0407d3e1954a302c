"""Ways to break Dataset901_Tiny: three cases of two channels, 6 x 10 x 8 voxels. Beside it stands what must be said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from helpers.datasets import write_image

Breaker = Callable[[Path], object]
BREAKERS: dict[str, Breaker] = {}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def breaker(function: Breaker) -> Breaker:
    """Register a way to break a dataset under its name."""
    BREAKERS[function.__name__] = function
    return function


def image(folder: Path, case: int = 1, channel: int = 1) -> Path:
    """An image file; that of the second channel of the second case unless asked otherwise."""
    return folder / "imagesTr" / f"case_{case:02d}_{channel:04d}.nii.gz"


def label(folder: Path, case: int = 1) -> Path:
    """A label file."""
    return folder / "labelsTr" / f"case_{case:02d}.nii.gz"


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of dataset.json; None removes one."""
    document = {**json.loads((folder / "dataset.json").read_text()), **changes}
    (folder / "dataset.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def rewrite(file: Path, change: Callable[[np.ndarray], np.ndarray] = lambda array: array, **geometry: Any) -> None:
    """Change the voxels (z, y, x) or the geometry (SetSpacing, SetOrigin, SetDirection) of a file."""
    old = sitk.ReadImage(str(file))
    new = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(old)))
    if new.GetDimension() == 3:
        for name in ("Spacing", "Origin", "Direction"):
            getattr(new, f"Set{name}")(geometry.get(name, getattr(old, f"Get{name}")()))
    sitk.WriteImage(new, str(file), True)


def put(*values: float) -> Callable[[np.ndarray], np.ndarray]:
    """A change that sets the first voxels."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.result_type(array, *(np.min_scalar_type(value) for value in values)))
        array.flat[: len(values)] = values
        return array

    return change


# dataset.json


@breaker
def no_dataset_json(f: Path) -> None:
    (f / "dataset.json").unlink()


@breaker
def dataset_json_of_another_name(f: Path) -> None:
    (f / "dataset.json").rename(f / "Dataset.json")


@breaker
def truncated_json(f: Path) -> None:
    (f / "dataset.json").write_text('{"labels": {"background": 0,')


@breaker
def json_list(f: Path) -> None:
    (f / "dataset.json").write_text("[1, 2]")


@breaker
def json_in_latin_1(f: Path) -> None:
    (f / "dataset.json").write_bytes('{"name": "Schädel"}'.encode("latin-1"))


@breaker
def deeply_nested_json(f: Path) -> None:
    (f / "dataset.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


@breaker
def empty_json_object(f: Path) -> None:
    (f / "dataset.json").write_text("{}")


@breaker
def old_modality(f: Path) -> None:
    edit(f, channel_names=None, modality={"0": "a", "1": "b"})


@breaker
def misspelt_keys(f: Path) -> None:
    edit(f, numTraining=None, num_training=3, region_class_order=[1, 2])


@breaker
def duplicate_key(f: Path) -> None:
    file = f / "dataset.json"
    file.write_text(file.read_text().replace("{", '{"numTraining": 7,', 1))


@breaker
def many_wrong_fields(f: Path) -> None:
    edit(f, channel_names={"1": "a"}, labels={"background": 1, "x": 1.5}, numTraining="many", file_ending="nii.gz")


@breaker
def channel_gap_in_json(f: Path) -> None:
    edit(f, channel_names={"0": "a", "2": "b"})


@breaker
def one_channel_name_too_few(f: Path) -> None:
    edit(f, channel_names={"0": "a"})


@breaker
def wrong_number_of_cases(f: Path) -> None:
    edit(f, numTraining=4)


@breaker
def other_file_ending(f: Path) -> None:
    edit(f, file_ending=".mha")


@breaker
def unknown_file_ending(f: Path) -> None:
    edit(f, file_ending=".docx")


@breaker
def ending_in_capitals(f: Path) -> None:
    edit(f, file_ending=".NII.GZ")


@breaker
def unknown_reader(f: Path) -> None:
    edit(f, overwrite_image_reader_writer="MyReaderIO")


# labels and regions


@breaker
def labels_as_list(f: Path) -> None:
    edit(f, labels=["background", "outer", "inner"])


@breaker
def labels_of_version_1(f: Path) -> None:
    edit(f, labels={"0": "background", "1": "outer", "2": "inner"})


@breaker
def label_gap(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "inner": 2, "more": 5})


@breaker
def no_background(f: Path) -> None:
    edit(f, labels={"Background": 0, "outer": 1, "inner": 2})


@breaker
def two_names_of_one_label(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "inner": 2, "kernel": 2})


@breaker
def ignore_is_not_highest(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "ignore": 2, "inner": 3})


@breaker
def ignore_is_a_region(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "inner": 2, "ignore": [3]})


@breaker
def regions_without_order(f: Path) -> None:
    edit(f, labels=REGIONS)


@breaker
def order_of_wrong_length(f: Path) -> None:
    edit(f, labels=REGIONS, regions_class_order=[1, 2, 3])


@breaker
def regions_in_wrong_order(f: Path) -> None:
    edit(f, labels=REGIONS, regions_class_order=[2, 1])


@breaker
def small_region_is_hidden_by_large_one(f: Path) -> None:
    edit(f, labels={"background": 0, "core": 2, "whole": [1, 2]}, regions_class_order=[2, 1])


@breaker
def empty_region(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "inner": []})


@breaker
def label_that_never_occurs(f: Path) -> None:
    edit(f, labels={"background": 0, "outer": 1, "inner": 2, "vessel": 3})


# files


@breaker
def no_labels_folder(f: Path) -> None:
    (f / "labelsTr").rename(f / "labels")


@breaker
def no_files_at_all(f: Path) -> None:
    for file in [*(f / "imagesTr").iterdir(), *(f / "labelsTr").iterdir()]:
        file.unlink()


@breaker
def missing_label(f: Path) -> None:
    label(f).unlink()


@breaker
def label_named_like_an_image(f: Path) -> None:
    label(f).rename(label(f).with_name("case_01_0000.nii.gz"))


@breaker
def label_of_another_ending(f: Path) -> None:
    label(f).rename(label(f).with_name("case_01.nii"))


@breaker
def missing_image(f: Path) -> None:
    image(f, channel=0).unlink()
    image(f, channel=1).unlink()
    edit(f, numTraining=2)


@breaker
def missing_channel(f: Path) -> None:
    image(f).unlink()


@breaker
def channel_gap(f: Path) -> None:
    image(f).rename(image(f, channel=2))


@breaker
def surplus_channel(f: Path) -> None:
    shutil.copyfile(image(f, channel=0), image(f, channel=2))


@breaker
def image_without_channel_number(f: Path) -> None:
    shutil.copyfile(image(f), f / "imagesTr" / "case_03.nii.gz")


@breaker
def channel_number_of_three_digits(f: Path) -> None:
    image(f).rename(f / "imagesTr" / "case_01_001.nii.gz")


@breaker
def hidden_file(f: Path) -> None:
    (f / "imagesTr" / "._case_00_0000.nii.gz").write_bytes(b"\0" * 100)


@breaker
def stray_image_of_another_ending(f: Path) -> None:
    (f / "imagesTr" / "preview.png").write_bytes(b"\x89PNG")


@breaker
def names_that_differ_in_case_only(f: Path) -> None:
    for channel in (0, 1):
        rewritten = f / "imagesTr" / f"Case_01_{channel:04d}.nii.gz"
        shutil.copyfile(image(f, channel=channel), rewritten)
        rewrite(rewritten, put(channel + 1))
    shutil.copyfile(label(f), f / "labelsTr" / "Case_01.nii.gz")
    edit(f, numTraining=4)


@breaker
def broken_link(f: Path) -> None:
    image(f).unlink()
    image(f).symlink_to("nowhere.nii.gz")


@breaker
def listed_files(f: Path) -> None:
    entries = {
        "a": {"images": ["imagesTr/case_00_0000.nii.gz", "gone.nii.gz"], "label": "labelsTr/case_00.nii.gz"},
        "b": {"images": ["imagesTr/case_01_0000.nii.gz", "imagesTr/case_01_0001.nii.gz"]},
        "c": {"images": ["imagesTr/case_02_0000.nii.gz"] * 2, "label": "labelsTr/case_02.nii.gz"},
    }
    edit(f, dataset=entries)


@breaker
def list_of_wrong_form(f: Path) -> None:
    images = ["imagesTr/case_00_0000.nii.gz", "imagesTr/case_00_0001.nii.gz"]
    sound = {"images": images, "label": "labelsTr/case_00.nii.gz"}
    edit(f, dataset={"a": sound, "../b": sound, "c": {"label": 3}, "d": "file"}, numTraining=1)


# images


@breaker
def truncated_image(f: Path) -> None:
    image(f).write_bytes(image(f).read_bytes()[:-30])


@breaker
def two_damaged_channels(f: Path) -> None:
    image(f, channel=0).write_bytes(b"")
    image(f, channel=1).write_bytes(b"no image")


@breaker
def flipped_bit(f: Path) -> None:
    content = bytearray(image(f).read_bytes())
    content[-6] ^= 1
    image(f).write_bytes(bytes(content))


@breaker
def folder_in_place_of_an_image(f: Path) -> None:
    image(f).unlink()
    image(f).mkdir()


@breaker
def nan(f: Path) -> None:
    rewrite(image(f), put(np.nan, np.nan, np.inf))


@breaker
def constant_image(f: Path) -> None:
    rewrite(image(f), lambda array: array * 0 + 7)


@breaker
def copied_image(f: Path) -> None:
    shutil.copyfile(image(f, 0), image(f, 2))


@breaker
def channels_of_different_shape(f: Path) -> None:
    rewrite(image(f), lambda array: array[:, :-1])


@breaker
def channels_of_different_spacing(f: Path) -> None:
    rewrite(image(f), Spacing=(1, 1, 1.5))


@breaker
def channels_of_different_origin_and_direction(f: Path) -> None:
    rewrite(image(f), Origin=(0, 0, 9), Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))


@breaker
def two_dimensional_case(f: Path) -> None:
    for file in (image(f, channel=0), image(f), label(f)):
        rewrite(file, lambda array: array[2])


@breaker
def spacing_in_metres(f: Path) -> None:
    for file in (image(f, channel=0), image(f), label(f)):
        rewrite(file, Spacing=(0.001, 0.001, 0.001))


@breaker
def sheared_image(f: Path) -> None:
    import nibabel

    shear = np.eye(4)
    shear[0, 1] = 0.5
    array = np.random.default_rng(0).random((5, 6, 4), np.float32)
    nibabel.save(nibabel.Nifti1Image(array, shear), image(f))


# label maps


@breaker
def truncated_label(f: Path) -> None:
    label(f).write_bytes(label(f).read_bytes()[:40])


@breaker
def empty_label(f: Path) -> None:
    rewrite(label(f), np.zeros_like)


@breaker
def unlisted_labels(f: Path) -> None:
    rewrite(label(f), put(9, 9, 200))


@breaker
def negative_label(f: Path) -> None:
    rewrite(label(f), lambda array: put(-1)(array.astype(np.int16)))


@breaker
def binary_mask(f: Path) -> None:
    rewrite(label(f), lambda array: (array > 0).astype(np.uint8) * 255)


@breaker
def fractional_labels(f: Path) -> None:
    rewrite(label(f), lambda array: put(0.5, 0.5, 1.25)(array.astype(np.float32)))


@breaker
def nan_in_label(f: Path) -> None:
    rewrite(label(f), lambda array: put(np.nan)(array.astype(np.float32)))


@breaker
def label_of_several_channels(f: Path) -> None:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(label(f))))
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([array, array], -1), isVector=True), str(label(f)))


@breaker
def label_of_another_shape(f: Path) -> None:
    rewrite(label(f), lambda array: array[:-1])


@breaker
def label_with_swapped_axes(f: Path) -> None:
    rewrite(label(f), lambda array: array.transpose(2, 1, 0))


@breaker
def label_of_another_spacing(f: Path) -> None:
    rewrite(label(f), Spacing=(1, 1, 1.00002))


@breaker
def label_of_another_origin_and_direction(f: Path) -> None:
    rewrite(label(f), Origin=(0, 0, 5), Direction=(0, 1, 0, 1, 0, 0, 0, 0, -1))


@breaker
def image_as_label(f: Path) -> None:
    rewrite(label(f), lambda array: np.arange(array.size, dtype=np.uint16).reshape(array.shape) + 3000)


@breaker
def case_named_like_a_segmentation(f: Path) -> None:
    for channel in (0, 1):
        image(f, channel=channel).rename(f / "imagesTr" / f"case_01_seg_{channel:04d}.nii.gz")
    label(f).rename(f / "labelsTr" / "case_01_seg.nii.gz")


@breaker
def tiny_region_of_interest(f: Path) -> None:
    for file in (image(f, channel=0), image(f), label(f)):
        rewrite(file, lambda array: array[:, :1, :4])


# 2D images


def _png(f: Path, channels: int, **changes: Any) -> None:
    """Three colour images in place of everything."""
    shutil.rmtree(f / "imagesTr")
    shutil.rmtree(f / "labelsTr")
    rng = np.random.default_rng(0)
    for case in range(3):
        pixels = rng.integers(0, 255, (16, 12, channels)).astype(np.uint8)
        write_image(f / "imagesTr" / f"case_{case:02d}_0000.png", pixels[..., 0] if channels == 1 else pixels, (1, 1))
        write_image(f / "labelsTr" / f"case_{case:02d}.png", (pixels[..., 0] % 3).astype(np.uint8), (1, 1))
    edit(f, file_ending=".png", channel_names={"0": "gray"}, **changes)


@breaker
def link_to_itself(f: Path) -> None:
    image(f).unlink()
    image(f).symlink_to(image(f).name)


@breaker
def folder_named_as_an_image(f: Path) -> None:
    (f / "imagesTr" / "case_09_0000.nii.gz").mkdir()


@breaker
def line_break_in_a_name(f: Path) -> None:
    shutil.copyfile(image(f), f / "imagesTr" / "case\n09_0000.nii.gz")


@breaker
def colour_images_of_one_channel_name(f: Path) -> None:
    _png(f, 3)


@breaker
def images_with_transparency(f: Path) -> None:
    _png(f, 4)
    edit(f, channel_names={"0": "R", "1": "G", "2": "B"})


@breaker
def colour_label(f: Path) -> None:
    _png(f, 1)
    write_image(f / "labelsTr" / "case_01.png", np.zeros((16, 12, 3)), (1, 1))


@breaker
def damaged_png(f: Path) -> None:
    _png(f, 1)
    file = f / "imagesTr" / "case_01_0000.png"
    file.write_bytes(file.read_bytes()[:60])


@breaker
def several_at_once(f: Path) -> None:
    edit(f, numTraining=4)
    rewrite(label(f, 0), put(7))
    rewrite(image(f, 0, 0), put(np.nan))
    image(f).write_bytes(b"nothing")
    label(f, 2).unlink()
