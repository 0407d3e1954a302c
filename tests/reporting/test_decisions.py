"""What was decided is read from inference_information.json and the postprocessing beside the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.postprocessing.postprocessing_file import save_postprocessing
from nnunet_lite.reporting.decisions import decisions_section, read_decisions

ONE = {"trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans", "configuration": "2d"}
NAMES: dict[Any, str] = {0: "background", 1: "one", 2: "<two>", (1, 2): "both"}


def information(**changes: Any) -> dict[str, Any]:
    best = {"selected_model_or_models": [ONE], "result_on_crossval_pre_pp": 0.5, "result_on_crossval_post_pp": 0.6}
    return {
        "best_model_or_ensemble": {**best, **changes},
        "folds": [0, 1],
        "all_results": {"a<b>": 0.4, "c": float("nan")},
    }


def write(results: Path, content: Any) -> None:
    results.mkdir(exist_ok=True)
    (results / "inference_information.json").write_text(json.dumps(content))


def test_a_single_model(tmp_path: Path) -> None:
    write(tmp_path, information())
    (tmp_path / "inference_instructions.txt").write_text("nnUNetv2_predict <x>")
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d" / "crossval_results_folds_0_1"
    folder.mkdir(parents=True)
    save_postprocessing([{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}, {"labels_or_regions": [(1, 2)]}],
                        folder / "postprocessing.pkl")  # fmt: skip
    decisions = read_decisions(tmp_path)
    assert decisions is not None and decisions.folder == folder and decisions.folds == (0, 1)
    html = decisions_section(decisions, NAMES)
    assert "A single model was chosen" in html and "0.5000 before, 0.6000 after" in html
    assert html.index("a&lt;b&gt;") < html.index('<th scope="row">c</th><td>–</td>')
    assert "nnUNetv2_predict &lt;x&gt;" in html
    for words in ("component of both.", "component of &lt;two&gt;.", "<ol>"):
        assert words in html


def test_an_ensemble(tmp_path: Path) -> None:
    other = {**ONE, "configuration": "3d_fullres"}
    write(tmp_path, information(selected_model_or_models=[ONE, other]))
    decisions = read_decisions(tmp_path)
    assert decisions is not None and decisions.folder.parent == tmp_path / "ensembles"
    assert decisions.best.startswith("ensemble___") and decisions.best.endswith("___0_1")
    html = decisions_section(decisions, NAMES)
    assert "An ensemble was chosen" in html and "missing, or cannot be read" in html
    decisions.folder.mkdir(parents=True)
    save_postprocessing([], decisions.folder / "postprocessing.pkl")
    again = read_decisions(tmp_path)
    assert again is not None and "None: removing small components" in decisions_section(again, NAMES)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, information(selected_model_or_models=[]), information(selected_model_or_models=["a"]),
     information(result_on_crossval_pre_pp="x"), {**information(), "folds": ["../x"]}, {**information(), "folds": 3},
     information(selected_model_or_models=[{**ONE, "trainer": "../.."}]),
     information(selected_model_or_models=[{**ONE, "trainer": ""}]),
     information(selected_model_or_models=[ONE, {**ONE, "configuration": ""}]),
     {**information(), "all_results": {"a": 10**400}}],
)  # fmt: skip
def test_what_cannot_be_used_counts_as_missing(tmp_path: Path, content: Any) -> None:
    write(tmp_path, content)
    assert read_decisions(tmp_path) is None
    assert read_decisions(tmp_path / "none") is None


def test_regions_within_regions_and_a_name_that_is_too_long(tmp_path: Path) -> None:
    write(tmp_path, information())
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d" / "crossval_results_folds_0_1"
    folder.mkdir(parents=True)
    steps = [{"labels_or_regions": [[1, 2], [2]]}, {"labels_or_regions": [[3], [2, 3]]}]
    (folder / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"] * 2,
                    "postprocessing_kwargs": steps})
    )  # fmt: skip
    decisions = read_decisions(tmp_path)
    assert decisions is not None and decisions.steps is not None
    html = decisions_section(decisions, NAMES)
    assert "component of both and &lt;two&gt; taken together." in html
    assert "component of label 3 and &lt;two&gt; and label 3 taken together taken together." in html
    write(tmp_path, information(selected_model_or_models=[{**ONE, "trainer": "x" * 300}]))
    decisions = read_decisions(tmp_path)
    assert decisions is not None and decisions.steps is None
