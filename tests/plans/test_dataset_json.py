"""DatasetJson: what is read, in which order, and what is refused."""

from __future__ import annotations

import json

import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson

DOCUMENT = {
    "channel_names": {"0": "CT", "1": "T2"},
    "labels": {"background": 0, "whole": [1, 2], "core": "2"},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "citation": "somebody",
}


def test_properties():
    view = DatasetJson(DOCUMENT)
    assert view.channel_names == ["CT", "T2"] and view.num_input_channels == 2
    assert view.labels == {"background": 0, "whole": [1, 2], "core": 2} and list(view.labels)[1] == "whole"
    assert view.regions_class_order == [1, 2]
    assert view.num_training == 3 and view.file_ending == ".nii.gz"
    assert view.reader_writer_name is None and view.explicit_cases is None and view.missing_keys == []
    assert view.raw["citation"] == "somebody"


def test_channels_are_ordered_by_number_not_by_place_in_the_file():
    names = {str(i): f"c{i}" for i in reversed(range(12))}
    assert DatasetJson({"channel_names": names}).channel_names == [f"c{i}" for i in range(12)]


def test_old_spelling_modality():
    assert DatasetJson({"modality": {"0": "MRI"}}).channel_names == ["MRI"]


@pytest.mark.parametrize("value", ["CT", {}, {"1": "CT"}, {"0": "CT", "2": "T2"}, {"first": "CT"}])
def test_channel_names_with_gaps_are_refused(value):
    with pytest.raises(DatasetError, match="channel_names"):
        len(DatasetJson({"channel_names": value}).channel_names)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", [0, 1]),
        ("labels", {"background": 0, "a": 1.5}),
        ("labels", {"a": "x"}),
        ("labels", {"a": True}),
        ("numTraining", "many"),
        ("file_ending", "nii.gz"),
        ("regions_class_order", "1,2"),
    ],
)
def test_unusable_values_are_named(key, value):
    name = {"numTraining": "num_training"}.get(key, key)
    with pytest.raises(DatasetError, match=key):
        getattr(DatasetJson({**DOCUMENT, key: value}), name)


@pytest.mark.parametrize("key", ["channel_names", "labels", "numTraining", "file_ending"])
def test_missing_keys(key):
    view = DatasetJson({k: v for k, v in DOCUMENT.items() if k != key})
    assert view.missing_keys == [key]
    with pytest.raises(DatasetError, match=key):
        getattr(view, {"numTraining": "num_training"}.get(key, key))


def test_reader_named_none_is_not_set():
    assert DatasetJson({"overwrite_image_reader_writer": "None"}).reader_writer_name is None
    assert DatasetJson({"overwrite_image_reader_writer": "NibabelIO"}).reader_writer_name == "NibabelIO"


@pytest.mark.parametrize("value", [["a"], {"a": "file"}, {"a": {"images": []}}, {"a": {"label": "x"}}])
def test_unusable_list_of_files(value):
    with pytest.raises(DatasetError, match="images"):
        dict(DatasetJson({"dataset": value}).explicit_cases or {})


def test_from_file(tmp_path):
    file = tmp_path / "dataset.json"
    with pytest.raises(DatasetError, match="There is no"):
        DatasetJson.from_file(file)
    for content in ('{"labels": ', "[1, 2]"):
        file.write_text(content)
        with pytest.raises(DatasetError, match=r"dataset\.json"):
            DatasetJson.from_file(file)
    file.write_text(json.dumps(DOCUMENT))
    assert DatasetJson.from_file(file).raw == DOCUMENT
