"""Cases that were preprocessed for other plans; nothing is said where that cannot be known."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_training

from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class
from nnunet_lite.training.case_check import other_plans


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_training.write_dataset(tmp_path) / "nnUNetPlans_3d"


def check(folder: Path, **changes: Any) -> str | None:
    plans = copy.deepcopy(tiny_training.plans())
    plans["configurations"]["3d_fullres"].update(changes)
    manager = PlansManager(plans)
    dataset = infer_dataset_class(folder)(folder)
    return other_plans(dataset, manager, manager.get_configuration("3d_fullres"))


def test_cases_of_these_plans(folder: Path) -> None:
    assert check(folder) is None
    assert check(folder, patch_size=[16, 16, 16]) is None  # which concerns only how files are laid out


def test_another_spacing(folder: Path) -> None:
    message = check(folder, spacing=[0.5, 1.0, 2.0])
    assert message is not None
    assert (
        message.startswith("case_0 has 10x16x14 voxels in ") and "(spacing [0.5, 1.0, 2.0]) make it 20x16x7" in message
    )


def test_rounding_is_no_difference(folder: Path) -> None:
    assert check(folder, spacing=[0.95, 1.0, 1.0]) is None


def test_others_do_as_they_like(folder: Path) -> None:
    assert check(folder, spacing=[2.0] * 3, preprocessor_name="MyPreprocessor") is None
    assert check(folder, spacing=[2.0] * 3, resampling_fn_data="no_resampling_hack") is None


def test_properties_of_another_kind(folder: Path) -> None:
    for file in folder.glob("*.pkl"):
        file.write_bytes(pickle.dumps({"spacing": [1.0, 1.0]}))
    assert check(folder, spacing=[2.0] * 3) is None
