"""Residual encoder planners: names, network, and when they share preprocessed cases with the default plans."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from helpers.fingerprints import write_fingerprint

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunet_lite.extensions import find_class


class _Reader:
    __name__ = "SimpleITKIO"


@pytest.fixture
def dataset(nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ExperimentPlanner, "determine_reader_writer", lambda self: _Reader())
    cases = ([(432, 512, 512)] * 40, [(1, 0.767, 0.767)] * 40)
    return write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases)


def identifiers(plans: dict[str, Any]) -> list[str]:
    return [c["data_identifier"] for c in plans["configurations"].values() if "data_identifier" in c]


SHARED = ["nnUNetPlans_2d", "{}_3d_lowres", "nnUNetPlans_3d_fullres"]
OWN = ["{}_2d", "{}_3d_lowres", "{}_3d_fullres"]


def test_liver_with_m(dataset: str) -> None:
    plans = nnUNetPlannerResEncM(dataset).plan_experiment()
    fullres, lowres, flat = (plans["configurations"][name] for name in ("3d_fullres", "3d_lowres", "2d"))
    assert (fullres["patch_size"], fullres["batch_size"]) == ([128] * 3, 2)
    assert (flat["patch_size"], flat["batch_size"]) == ([512, 512], 12)
    assert lowres["spacing"] == [2.4272624711896627, 1.8617103154024706, 1.8617103154024706]
    kwargs = fullres["architecture"]["arch_kwargs"]
    assert kwargs["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    assert list(kwargs)[5:7] == ["n_blocks_per_stage", "n_conv_per_stage_decoder"]
    assert identifiers(plans) == [i.format("nnUNetResEncUNetMPlans") for i in SHARED]


@pytest.mark.parametrize(
    ("name", "plans_name"),
    [
        ("ResEncUNetPlanner", "nnUNetResEncUNetPlans"),
        ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
        ("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans"),
        ("nnUNetPlannerResEncXL", "nnUNetResEncUNetXLPlans"),
    ],
)
def test_names(name: str, plans_name: str, dataset: str) -> None:
    planner = find_class("planner", name)(dataset)
    assert planner.plans_identifier == plans_name
    assert planner.generate_data_identifier("2d") == "nnUNetPlans_2d"
    assert planner.generate_data_identifier("3d_lowres") == f"{plans_name}_3d_lowres"


@pytest.mark.parametrize(
    "options",
    [{"overwrite_target_spacing": [2, 2, 2]}, {"preprocessor_name": "Mine"}, {"overwrite_target_spacing": [1, 2, 4]}],
)
def test_cases_that_would_differ_are_not_shared(options: dict[str, Any], dataset: str) -> None:
    """Upstream writes into the default plans' folders nevertheless and so destroys their cases."""
    plans = nnUNetPlannerResEncL(dataset, plans_name="mine", **options).plan_experiment()
    assert [i for i in identifiers(plans) if "lowres" not in i] == ["mine_2d", "mine_3d_fullres"]


def test_existing_default_plans_decide(dataset: str, nnunet_folders: Any) -> None:
    ExperimentPlanner(dataset, overwrite_target_spacing=[2, 2, 2]).plan_experiment()
    own = nnUNetPlannerResEncM(dataset).plan_experiment()
    assert identifiers(own) == [i.format("nnUNetResEncUNetMPlans") for i in OWN]
    same = nnUNetPlannerResEncM(dataset, overwrite_target_spacing=[2, 2, 2]).plan_experiment()
    assert "nnUNetPlans_3d_fullres" in identifiers(same) and "nnUNetPlans_2d" in identifiers(same)
    ExperimentPlanner(dataset).plan_experiment()
    file = nnunet_folders.preprocessed / dataset / "nnUNetPlans.json"
    edited = json.loads(file.read_text())
    edited["configurations"]["2d"]["normalization_schemes"] = ["NoNormalization"]
    file.write_text(json.dumps(edited))
    plans = nnUNetPlannerResEncM(dataset).plan_experiment()
    assert identifiers(plans)[0] == "nnUNetResEncUNetMPlans_2d"
    assert identifiers(plans)[-1] == "nnUNetPlans_3d_fullres"


def test_other_memory_targets_are_warned_about(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        nnUNetPlannerResEncXL(dataset, 40)
        ResEncUNetPlanner(dataset, 20)
        nnUNetPlannerResEncM(dataset, 16, plans_name="nnUNetResEncUNetPlans_16G")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        nnUNetPlannerResEncL(dataset, 20)
    assert "nnUNetPlannerResEncL is made for 24 GB, you ask for 20 GB" in caplog.text
