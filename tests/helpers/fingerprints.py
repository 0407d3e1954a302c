"""Datasets that consist of dataset.json and a fingerprint: all that planning looks at, besides one image's name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INTENSITIES = {
    "max": 9.0,
    "mean": 5.0,
    "median": 5.0,
    "min": 1.0,
    "percentile_00_5": 1.5,
    "percentile_99_5": 8.5,
    "std": 2.0,
}


def write_fingerprint(
    raw: Path,
    preprocessed: Path,
    shapes: Sequence[Sequence[int]],
    spacings: Sequence[Sequence[float]],
    channels: Sequence[str] = ("CT",),
    labels: Mapping[str, Any] | None = None,
    name: str = "Dataset001_A",
    relative_size: float = 1.0,
    num_training: int | None = None,
    **more: Any,
) -> str:
    """Write a dataset of these cases (shapes in voxels, spacings in mm, array axis order); returns its name."""
    (raw / name / "imagesTr").mkdir(parents=True, exist_ok=True)
    (raw / name / "labelsTr").mkdir(exist_ok=True)
    (preprocessed / name).mkdir(parents=True, exist_ok=True)
    document = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": labels or {"background": 0, "a": 1, "b": 2},
        "numTraining": len(shapes) if num_training is None else num_training,
        "file_ending": ".nii.gz",
        **more,
    }
    fingerprint = {
        "foreground_intensity_properties_per_channel": {str(i): INTENSITIES for i in range(len(channels))},
        "median_relative_size_after_cropping": relative_size,
        "shapes_after_crop": [list(shape) for shape in shapes],
        "spacings": [list(spacing) for spacing in spacings],
    }
    (raw / name / "dataset.json").write_text(json.dumps(document))
    (preprocessed / name / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return name
