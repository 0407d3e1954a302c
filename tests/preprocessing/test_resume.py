"""A case's memory is estimated from its header only; the record of finished cases is tested with the preprocessor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import write_image

from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.resume import estimate_memory

MIB = 2**20


def _plans(spacing: list[float], transpose: tuple[int, ...] = (0, 1, 2)) -> PlansManager:
    return PlansManager(
        {
            "dataset_name": "Dataset901_Tiny",
            "plans_name": "nnUNetPlans",
            "transpose_forward": list(transpose),
            "transpose_backward": [transpose.index(axis) for axis in range(3)],
            "image_reader_writer": "SimpleITKIO",
            "configurations": {"3d_fullres": {"data_identifier": "x", "spacing": spacing}},
        }
    )


def _estimate(files: list[Path], spacing: list[float], transpose: tuple[int, ...] = (0, 1, 2)) -> float:
    plans = _plans(spacing, transpose)
    return estimate_memory([str(file) for file in files], plans, plans.get_configuration("3d_fullres")) / MIB


def test_estimate_follows_the_larger_of_both_sizes_and_the_channels(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii.gz"
    write_image(file, np.zeros((64, 128, 256), np.int16), (2.0, 1.0, 1.0))  # 2 Mi voxels, a few kilobytes on disk
    base = 140
    kept = _estimate([file], [2.0, 1.0, 1.0])
    assert kept == pytest.approx(base + 1.05 * 2 * 16.5)
    assert _estimate([file], [8.0, 4.0, 4.0]) == pytest.approx(base + 1.05 * 2 * 13)  # reading decides
    assert _estimate([file], [1.0, 1.0, 1.0]) == pytest.approx(base + 1.05 * 4 * 16.5)
    assert _estimate([file], [1.0, 1.0, 2.0], (1, 2, 0)) == kept
    assert _estimate([file] * 3, [2.0, 1.0, 1.0]) == pytest.approx(base + 1.05 * 2 * 40.5)


def test_a_reader_that_would_read_everything_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnReader(BaseReaderWriter):
        def write_seg(self, seg: Any, output_fname: str, properties: Any) -> None: ...

    monkeypatch.setattr(PlansManager, "image_reader_writer_class", OwnReader)
    file = tmp_path / "case_0000.own"
    file.write_bytes(bytes(MIB))
    assert _estimate([file], [1.0, 1.0, 1.0]) == 140 + 20
