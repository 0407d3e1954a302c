"""A model folder whose labels have gaps: nnU-Net writes output channels, we write labels; training refuses it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import succeed


def _predict(model: Path, images: Path, output: Path) -> dict[str, np.ndarray]:
    options = ("-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar", "--disable_tta")
    succeed("nnUNetv2_predict_from_modelfolder", "-i", images, "-o", output, "-m", model, *options)
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in output.glob("*.nii.gz")}


def test_prediction_writes_the_labels_and_warns_once(
    model: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_index = _predict(model, images, tmp_path / "consecutive")
    document = json.loads((model / "dataset.json").read_text())
    document["labels"] = {"background": 0, "b": 300, "a": 7}
    (model / "dataset.json").write_text(json.dumps(document))
    with caplog.at_level(logging.WARNING):
        by_value = _predict(model, images, tmp_path / "gaps")
    assert len(by_index) == 3 and by_value.keys() == by_index.keys()
    for name, labels in by_value.items():
        assert np.array_equal(labels, np.array([0, 7, 300])[by_index[name]])
    assert len(np.unique(np.concatenate([labels.ravel() for labels in by_value.values()]))) > 1
    assert [record.getMessage().count("[0, 7, 300]") for record in caplog.records if "consecutive" in record.msg] == [1]
