"""Planners that differ in resampling only."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.fingerprints import write_fingerprint

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.residual_encoder_unet_planners import nnUNetPlannerResEncL
from nnunet_lite.extensions import find_class

TORCH = {"force_separate_z": False, "memefficient_seg_resampling": False}
SEPARATE = {"force_separate_z": None, "memefficient_seg_resampling": False, "separate_z_anisotropy_threshold": 3}


class _Reader:
    __name__ = "SimpleITKIO"


@pytest.mark.parametrize(
    ("name", "plans_name", "function", "kwargs", "base"),
    [
        ("nnUNetPlanner_torchres", "nnUNetPlans_torchres", "resample_torch_fornnunet", TORCH, ExperimentPlanner),
        ("nnUNetPlannerResEncL_torchres", "nnUNetResEncUNetLPlans_torchres", "resample_torch_fornnunet", TORCH,
         nnUNetPlannerResEncL),
        ("nnUNetPlannerResEncL_torchres_sepz", "nnUNetResEncUNetLPlans_torchres_sepz", "resample_torch_fornnunet",
         SEPARATE, nnUNetPlannerResEncL),
        ("nnUNetPlannerResEncL_noResampling", "nnUNetResEncUNetLPlans_noResampling", "no_resampling_hack", None,
         nnUNetPlannerResEncL),
    ],
)  # fmt: skip
def test_what_they_write(
    name: str, plans_name: str, function: str, kwargs: Any, base: Any, nnunet_folders: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ExperimentPlanner, "determine_reader_writer", lambda self: _Reader())
    cases = ([(20, 320, 320)] * 32, [(3.6, 0.625, 0.625)] * 32)
    dataset = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases)
    plans = find_class("planner", name)(dataset).plan_experiment()
    reference = base(dataset).plan_experiment()
    assert plans["plans_name"] == plans_name and plans["experiment_planner_used"] == name
    for configuration in ("2d", "3d_fullres"):
        planned, expected = plans["configurations"][configuration], reference["configurations"][configuration]
        assert planned["data_identifier"] == f"{plans_name}_{configuration}"
        for part, is_seg in (("data", False), ("seg", True), ("probabilities", False)):
            assert planned[f"resampling_fn_{part}"] == function
            assert planned[f"resampling_fn_{part}_kwargs"] == ({} if kwargs is None else {"is_seg": is_seg, **kwargs})
        assert list(planned) == list(expected)
        same = [key for key in planned if "resampling" not in key and key != "data_identifier"]
        assert {key: planned[key] for key in same} == {key: expected[key] for key in same}
