"""What becomes of the dataset.json of the Decathlon and of v1."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lite.dataset_conversion.earlier_dataset_json import (
    channel_names,
    converted_document,
    warn_about_absent_cases,
)
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson


def _labels(labels):
    return converted_document(DatasetJson({"labels": labels, "modality": {"0": "CT"}}), 1, ())["labels"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"0": "background", "1": "a"}, {"background": 0, "a": 1}),
        ({"0": "background", "2": "b", "1": "a"}, {"background": 0, "b": 2, "a": 1}),
        ({"background": 0, "a": 1}, {"background": 0, "a": 1}),
        ({"background": "0", "a": "1"}, {"background": 0, "a": 1}),
        ({"0": "Air", "1": "a"}, {"background": 0, "a": 1}),
        ({"1": "a"}, {"background": 0, "a": 1}),
    ],
)
def test_labels_become_name_to_number_with_a_background(before, after):
    assert list(_labels(before).items()) == list(after.items())


@pytest.mark.parametrize(
    "labels",
    [{"0": 0, "1": 1}, {"0": "background", "1": ""}, {"background": 1, "a": 0}, {}, {"0": "background", "²": "a"}],
)
def test_labels_that_mean_nothing(labels):
    with pytest.raises(DatasetError) as error:
        _labels(labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("modality", [{"1": "T2", "0": "T1"}, ["T1", "T2"]])
def test_modality_becomes_channel_names_in_order(modality):
    assert channel_names(DatasetJson({"modality": modality})) == ["T1", "T2"]


def test_a_single_modality_may_be_a_text_and_todays_key_wins():
    assert channel_names(DatasetJson({"modality": "CT"})) == ["CT"]
    assert channel_names(DatasetJson({"modality": "CT", "channel_names": {"0": "MR"}})) == ["MR"]


def test_the_callers_document_stays_as_it_is():
    raw = {"labels": {"0": "background", "1": "a"}, "modality": {"0": "CT"}, "numTraining": 9, "test": []}
    before = {**raw, "labels": dict(raw["labels"])}
    content = converted_document(DatasetJson(raw), 2, ("test",))
    assert raw == before
    assert content == {
        "labels": {"background": 0, "a": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "channel_names": {"0": "CT"},
    }


def test_listed_cases_without_files_are_named(caplog):
    training = [
        {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
        {"image": "imagesTr\\b_0000.nii.gz"},
        "./imagesTr/c.nii.gz",
        {"image": "./imagesTr/d.nii.gz", "label": "./labelsTr/d.nii.gz"},
        None,
    ]
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        warn_about_absent_cases(DatasetJson({"training": training}), {"a", "b", "c"})
    assert "are left out (2): d, None" in caplog.text
    caplog.clear()
    warn_about_absent_cases(DatasetJson({"training": "everything"}), set())
    assert not caplog.records


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.sampled_from(["0", "1", "background", "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["0", "1", "2", "background", "a", "ignore", "image", "label"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["labels", "modality", "channel_names", "training", "numTraining", "regions_class_order"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, JSON))
def test_no_document_ends_in_anything_but_a_line(raw):
    document = DatasetJson(raw)
    warn_about_absent_cases(document, {"a"})
    try:
        content = converted_document(document, 1, ("training",))
    except DatasetError as error:
        assert "\n" not in str(error)
    else:
        assert content["labels"]["background"] == 0 and content["channel_names"]
