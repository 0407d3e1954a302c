"""Additional metrics of files: axes and spacing, ignore label, regions, absent classes, 2D; means and their numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK

from nnunet_lite.evaluation.additional_metrics import make_request, summarize_additional
from nnunet_lite.evaluation.additional_metrics_of_case import additional_metrics_of_pair, compute_all_metrics
from nnunet_lite.evaluation.metrics import Pair
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunet_lite.imageio.nibabel_reader_writer import NibabelIO
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO

SPACING = (4.0, 2.0, 0.5)  # z, y, x


def _write(file, labels, spacing=SPACING):
    image = SimpleITK.GetImageFromArray(np.asarray(labels, np.uint8))
    image.SetSpacing(tuple(reversed(spacing)))
    SimpleITK.WriteImage(image, str(file))
    return str(file)


def _metrics(reference, prediction, classes=(1,), ignore=None, spacing=SPACING, tolerance=None, names=("all",)):
    pair = Pair(
        *(value for image in (reference, prediction) for value in (np.asarray(image)[None], {"spacing": spacing}))
    )
    return additional_metrics_of_pair(pair, list(classes), ignore, make_request(names, tolerance, classes))


def _moved(shape, axis):
    images = np.zeros((2, *shape), np.uint8)
    for image, place in zip(images, (1, 4), strict=True):
        image[(slice(None),) * axis + (place,)] = 1
    return images


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spacing_goes_with_its_axis_whatever_reads_the_file(reader, axis, tmp_path):
    reference, prediction = _moved((6, 6, 6), axis)
    files = [_write(tmp_path / name, image) for name, image in (("r.nii.gz", reference), ("p.nii.gz", prediction))]
    case = compute_all_metrics(*files, reader(), [1], None, make_request(["all"], None, [1]))
    found = case["additional_metrics"][1]
    assert found["hd95"] == pytest.approx(3 * SPACING[axis])
    assert found["assd"] == pytest.approx(2.5 * SPACING[axis])
    assert found["volume_ref_ml"] == pytest.approx(36 * 4 * 2 * 0.5 / 1000)
    assert case["metrics"][1]["Dice"] == 0


def test_volumes():
    reference, prediction = np.zeros((2, 3, 4, 5), np.int16)
    reference[0, 0, :4], prediction[0, 0, :3] = 1, 1
    found = _metrics(reference, prediction, names=["volume"])[1]
    assert found == pytest.approx(
        {
            "volume_ref_ml": 0.016,
            "volume_pred_ml": 0.012,
            "volume_difference_ml": -0.004,
            "absolute_volume_difference_ml": 0.004,
            "relative_volume_difference": -0.25,
            "absolute_relative_volume_difference": 0.25,
        }
    )


def test_ignored_voxels_belong_to_neither():
    reference, prediction = _moved((6, 6, 6), 2)
    reference[3:], prediction[:3] = 9, 0
    found = _metrics(reference, prediction, ignore=9)[1]
    assert found["volume_pred_ml"] == 0 and found["volume_ref_ml"] > 0
    assert math.isnan(found["hd95"]) and found["nsd"] == 0 and found["lesions_missed"] == 1
    with_it = _metrics(np.where(reference == 9, 0, reference), prediction)[1]
    assert with_it["volume_pred_ml"] > 0


def test_regions_that_overlap_are_each_their_union():
    generator = np.random.default_rng(0)
    reference, prediction = generator.integers(0, 4, (2, 5, 6, 7)).astype(np.uint8)
    found = _metrics(reference, prediction, [(1, 2), (2, 3), 2])
    for region in ((1, 2), (2, 3)):
        union = _metrics(*(np.isin(image, region).astype(np.uint8) for image in (reference, prediction)))
        assert found[region] == union[1]
    assert found[2] != found[(1, 2)]


@pytest.mark.parametrize("shift", [0, 2**20, -2])
def test_label_values_of_any_size_and_the_background(shift):
    reference, prediction = _moved((6, 6, 6), 1).astype(np.int64)
    expected = _metrics(reference, prediction, [1])[1]
    others = _metrics(np.where(reference == 1, 1 + shift, 0), np.where(prediction == 1, 1 + shift, 0), [1 + shift, 0])
    assert others[1 + shift] == expected
    assert others[0]["volume_ref_ml"] == pytest.approx(0.72)


def test_a_class_that_only_one_has_or_none():
    reference, prediction = np.zeros((2, 4, 4, 4), np.uint8)
    reference[0, 0, 0], prediction[3, 3, 3] = 1, 2
    missed, invented, absent = _metrics(reference, prediction, [1, 2, 3]).values()
    for found in (missed, invented):
        assert math.isnan(found["hd95"]) and math.isnan(found["assd"]) and found["nsd"] == 0
    assert missed["relative_volume_difference"] == -1 and math.isnan(invented["relative_volume_difference"])
    assert (missed["lesion_sensitivity"], invented["lesion_precision"]) == (0, 0)
    assert math.isnan(absent["nsd"]) and math.isnan(absent["lesion_f1"]) and absent["volume_difference_ml"] == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_measured_within_itself(axis):
    flat = np.expand_dims(_moved((6, 6), 1)[0], axis), np.expand_dims(_moved((6, 6), 1)[1], axis)
    steps = [step for number, step in enumerate(SPACING) if number != axis]
    found = _metrics(*flat)[1]
    assert (found["hd95"], found["assd"]) == pytest.approx((3 * steps[1], 2.5 * steps[1]))
    assert found["volume_ref_ml"] == pytest.approx(6 * 4 / 1000)
    assert math.isnan(_metrics(*flat, [5])[5]["hd95"])


def test_images_without_thickness_have_areas(tmp_path):
    reference, prediction = _moved((6, 6), 0)
    for name, image in (("r.png", reference), ("p.png", prediction)):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(tmp_path / name))
    files = [str(tmp_path / name) for name in ("r.png", "p.png")]
    found = compute_all_metrics(*files, NaturalImage2DIO(), [1], None, make_request(["all"], None, [1]))
    values = found["additional_metrics"][1]
    assert (values["area_ref_mm2"], values["hd95"], values["lesions_false"]) == (6, 3, 1)
    assert "volume_ref_ml" not in values


def test_another_spacing_is_an_error(tmp_path):
    files = [
        _write(tmp_path / "r.nii.gz", np.ones((2, 2, 2))),
        _write(tmp_path / "p.nii.gz", np.ones((2, 2, 2)), (4, 2, 1)),
    ]
    with pytest.raises(
        DatasetError, match=r"p.nii.gz has spacing \(4, 2, 1\), its reference \(4, 2, 0.5\) in .*r.nii.gz"
    ):
        compute_all_metrics(*files, SimpleITKIO(), [1], None, make_request(["surface"], None, [1]))


def test_tolerance_for_each_class():
    reference, prediction = _moved((6, 6, 6), 2)
    both = [np.concatenate([image, 2 * image]) for image in (reference, prediction)]
    found = _metrics(*both, [1, 2], tolerance=[1.5, 0.9], names=["surface"])
    assert found[1]["nsd"] == 1 and found[2]["nsd"] < 0.5


@pytest.mark.parametrize(
    ("names", "tolerances", "message"),
    [
        (["surfaces"], None, "--metrics surfaces: expected one or more of surface, volume, lesion, or all"),
        (["volume"], [1.0], "--nsd_tolerance belongs to the surface metrics"),
        (None, [1.0], "--nsd_tolerance belongs to the surface metrics"),
        (
            ["all"],
            [1.0, 2.0],
            r"2 numbers; expected one for all classes, or one for each of 1, 2, \(1, 2\) in this order",
        ),
        (["surface"], [0.0], "--nsd_tolerance 0: expected a number of mm above zero"),
        (["surface"], [math.nan], "--nsd_tolerance nan"),
    ],
)
def test_wrong_requests(names, tolerances, message):
    with pytest.raises(ArgumentError, match=message):
        make_request(names, tolerances, [1, 2, (1, 2)])


def test_means_say_over_how_many_cases():
    classes = [0, 1, 2, 3]
    values = {"a": {0: 9.0, 1: 1.0, 2: math.nan, 3: math.nan}, "b": {0: 9.0, 1: 2.0, 2: 6.0, 3: math.nan}}
    cases = [{"metrics": {entry: {"hd95": value} for entry, value in case.items()}} for case in values.values()]
    found = summarize_additional(cases, classes, make_request(["surface"], [2.0], classes))
    assert [found["mean"][entry]["hd95"] for entry in (1, 2)] == [1.5, 6.0] and math.isnan(found["mean"][3]["hd95"])
    assert [found["number_of_cases"][entry]["hd95"] for entry in classes] == [2, 2, 1, 0]
    assert found["foreground_mean"] == {"hd95": 3.75} and found["number_of_classes"] == {"hd95": 2}
    assert found["nsd_tolerance_mm"] == dict.fromkeys(classes, 2.0)


def test_lesions_of_all_cases_are_counted_together():
    images = [_moved((6, 6, 6), 0), np.ones((2, 3, 3, 3), np.uint8), np.ones((2, 3, 3, 3), np.uint8)]
    cases = [{"metrics": _metrics(*pair, names=["lesion"])} for pair in images]
    found = summarize_additional(cases, [1], make_request(["lesion"], None, [1]))["lesions_of_all_cases"][1]
    assert (found["lesions_ref"], found["lesions_found"], found["lesions_false"]) == (3, 2, 1)
    assert (found["lesion_sensitivity"], found["lesion_f1"]) == (2 / 3, 2 / 3)
