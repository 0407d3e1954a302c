"""The view of dataset_fingerprint.json and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.fingerprint import DatasetFingerprint

RAW: dict[str, Any] = {
    "spacings": [[3.0, 1.0, 1.0]],
    "shapes_after_crop": [[10, 20, 30]],
    "median_relative_size_after_cropping": 1,
    "foreground_intensity_properties_per_channel": {"0": {"mean": 2.0}},
    "something else": 5,
}


def test_view(tmp_path: Path) -> None:
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(RAW))
    fingerprint = DatasetFingerprint.from_file(tmp_path / "dataset_fingerprint.json")
    assert fingerprint.raw == RAW
    assert fingerprint.spacings == [[3.0, 1.0, 1.0]]
    assert fingerprint.shapes_after_crop == [[10, 20, 30]]
    assert fingerprint.median_relative_size_after_cropping == 1.0
    assert fingerprint.intensity_properties == {"0": {"mean": 2.0}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacings": [[3.0, 1.0, 1.0]] * 2}, "2 spacings and 1 shapes"),
        ({"spacings": [], "shapes_after_crop": []}, "at least one case"),
        ({"spacings": [[0.0, 1.0, 1.0]]}, "three positive numbers"),
        ({"shapes_after_crop": [[10, 20]]}, "three positive numbers"),
        ({"shapes_after_crop": [[10, 20, 1e8]]}, "1e-07 to 1e\\+07"),  # planning would not come to an end
        ({"spacings": [[1.0, "1", 1.0]]}, "three positive numbers"),
        ({"spacings": [5]}, "three positive numbers"),
    ],
)
def test_contradictions(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlansError, match=message):
        DatasetFingerprint({**RAW, **change})


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(PlansError, match="extract the fingerprint first: nnUNetv2_extract_fingerprint -d Dataset001_A"):
        DatasetFingerprint.from_file(tmp_path / "Dataset001_A" / "dataset_fingerprint.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(PlansError, match="no JSON file"):
        DatasetFingerprint.from_file(tmp_path / "a.json")
    with pytest.raises(PlansError, match="lacks spacings"):
        DatasetFingerprint({})
