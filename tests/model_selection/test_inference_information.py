"""inference_information.json: names of models that can have a folder, whatever else stands there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.model_selection.inference_information import FILE, read_inference_information

CHOSEN = {"trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans", "configuration": "2d"}
CONSIDERED = {"trainer": "nnUNetTrainer", "plans": "nnUNetPlans", "configuration": "2d"}
NAME = "nnUNetTrainer__nnUNetPlans__2d"


def write(folder: Path, chosen: Any, considered: Any) -> None:
    content = {"best_model_or_ensemble": {"selected_model_or_models": chosen}, "considered_models": considered}
    (folder / FILE).write_text(json.dumps(content))


def test_names(tmp_path: Path) -> None:
    assert read_inference_information(tmp_path) is None
    write(tmp_path, [CHOSEN], [CONSIDERED, {**CONSIDERED, "configuration": "3d_fullres"}])
    found = read_inference_information(tmp_path)
    assert found is not None and found.chosen == [NAME]
    assert found.considered == [NAME, "nnUNetTrainer__nnUNetPlans__3d_fullres"]
    assert found.content["considered_models"][0] == CONSIDERED


@pytest.mark.parametrize("value", ["", None, 3, "../x", "a\\b", []])
@pytest.mark.parametrize("key", ["trainer", "configuration"])
def test_names_that_cannot_be_those_of_models_are_dropped(tmp_path: Path, key: str, value: Any) -> None:
    write(tmp_path, [CHOSEN, {**CHOSEN, key: value}], [{**CONSIDERED, key: value}, 3, {}, CONSIDERED])
    found = read_inference_information(tmp_path)
    assert found is not None and found.considered == [NAME]
    assert found.chosen == [], "half an ensemble is another model"


@pytest.mark.parametrize("considered", [None, 3, {}, "text"])
def test_the_choice_stands_without_what_was_compared(tmp_path: Path, considered: Any) -> None:
    write(tmp_path, [CHOSEN], considered)
    found = read_inference_information(tmp_path)
    assert found is not None and found.chosen == [NAME] and found.considered == []


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '{"best_model_or_ensemble": 3}', "[" * 100_000])
def test_a_damaged_document_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert read_inference_information(tmp_path) is None
    write(tmp_path, ["a"], [])
    assert read_inference_information(tmp_path) is None
