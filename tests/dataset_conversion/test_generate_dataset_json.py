"""generate_dataset_json: upstream's signature and file, one defect mended, nothing written for a bad document."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_lite.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunet_lite.exceptions import DatasetError

PLAIN: dict[str, Any] = {
    "channel_names": {0: "MRI"},
    "labels": {"background": 0, "tumour": 1},
    "num_training_cases": 7,
    "file_ending": ".nii.gz",
}


def _written(folder: Path, **arguments: Any) -> dict[str, Any]:
    generate_dataset_json(str(folder), **{**PLAIN, **arguments})
    return json.loads((folder / "dataset.json").read_text())


def test_signature_is_upstreams():
    assert list(inspect.signature(generate_dataset_json).parameters) == [
        *("output_folder", "channel_names", "labels", "num_training_cases", "file_ending", "citation"),
        *("regions_class_order", "dataset_name", "reference", "release", "description"),
        *("overwrite_image_reader_writer", "license", "converted_by", "kwargs"),
    ]


def test_everything_given_lands_under_upstreams_keys_in_upstreams_order(tmp_path):
    document = _written(
        tmp_path,
        labels={"background": 0, "whole": (1, 2), "core": "2", "rim": ["1", np.int64(3)]},
        citation=["x", "y"],
        regions_class_order=(1, 2, 3),
        dataset_name="N",
        reference="R",
        release="1",
        description="D",
        overwrite_image_reader_writer="SimpleITKIO",
        license="L",
        converted_by="me",
        foo=3,
    )
    assert list(document) == [
        *("channel_names", "labels", "numTraining", "file_ending", "licence", "converted_by", "name", "reference"),
        *("release", "citation", "description", "overwrite_image_reader_writer", "regions_class_order", "foo"),
    ]
    assert document["labels"] == {"background": 0, "whole": [1, 2], "core": 2, "rim": [1, 3]}
    assert list(document["labels"]) == ["background", "whole", "core", "rim"]
    assert document["citation"] == ["x", "y"]  # upstream stores the release here
    assert document["licence"] == "L" and document["foo"] == 3


def test_what_is_not_given_is_left_out(tmp_path):
    document = _written(tmp_path / "new" / "folder")
    assert set(document) == {"channel_names", "labels", "numTraining", "file_ending", "licence", "converted_by"}


@pytest.mark.parametrize("names", [{0: "T1", "1": "CT"}, {"1": "CT", "0": "T1"}, ["T1", "CT"], ("T1", "CT")])
def test_channels_are_written_in_the_order_of_their_numbers(tmp_path, names):
    assert list(_written(tmp_path, channel_names=names)["channel_names"].items()) == [("0", "T1"), ("1", "CT")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"channel_names": {1: "MRI"}}, "without gaps"),
        ({"channel_names": "MRI"}, "channel_names"),
        ({"labels": ["background", "tumour"]}, '"labels" is'),
        ({"labels": {"tumour": 1}}, "background is None"),
        ({"labels": {"background": 0, "a": 1.5}}, "1.5"),
        ({"labels": {"background": 0, "a": (1, 2)}}, "regions_class_order"),
        ({"labels": {"background": 0, "a": 1, "ignore": 4}}, "ignore is 4"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"num_training_cases": -1}, "numTraining. is -1"),
        ({"num_training_cases": 2.5}, "numTraining. is 2.5"),
    ],
)
def test_a_document_nobody_could_use_is_refused_in_one_line_and_not_written(tmp_path, arguments, named):
    with pytest.raises(DatasetError, match=named) as error:
        _written(tmp_path, **arguments)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.sampled_from(["0", "a", "background", ".png"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from([0, 1, "0", "background", "a", "ignore"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*PLAIN, "regions_class_order"]), ANYTHING, min_size=1))
def test_no_argument_ends_in_anything_but_a_line_or_a_file(tmp_path, arguments):
    try:
        document = _written(tmp_path, **arguments)
    except DatasetError as error:
        assert "\n" not in str(error)
    else:
        assert document["labels"]["background"] == 0 and document["file_ending"].startswith(".")
