"""Postprocessing of real cases against what upstream 2.8.1 decided and wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing
from nnunet_lite.postprocessing.remove_connected_components import (
    apply_postprocessing_to_folder,
    determine_postprocessing,
)


def _same_labels(folder: Path, recorded: Path) -> int:
    names = sorted(file.name for file in recorded.glob("*.nii.gz"))
    for name in names:
        ours, theirs = (SimpleITKIO().read_seg(str(place / name)) for place in (folder, recorded))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1]["sitk_stuff"] == theirs[1]["sitk_stuff"]
    return len(names)


def _means(file: Path) -> Any:
    content = json.loads(file.read_text())
    return {key: content[key] for key in ("foreground_mean", "mean")}


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset900_Torso"])
def test_decisions_and_files(goldens: Path, tmp_path: Path, name: str) -> None:
    dataset = goldens / name
    recorded, evaluated = dataset / "postprocessing", dataset / "eval"
    folder = tmp_path / "predictions"
    shutil.copytree(evaluated / "preds", folder)
    documents = (dataset / "nnUNetPlans.json", dataset / "dataset.json")
    functions, kwargs = determine_postprocessing(folder, evaluated / "gt", *documents, num_processes=0)
    assert json.loads((folder / "postprocessing.json").read_text()) == json.loads(
        (recorded / "postprocessing.json").read_text()
    )
    for file in ("postprocessing.pkl", "postprocessing.json"):
        assert load_postprocessing(recorded / file) == kwargs
    assert _means(folder / "postprocessed" / "summary.json") == _means(recorded / "determine_out" / "summary.json")
    assert _same_labels(folder / "postprocessed", recorded / "determine_out") > 0
    apply_postprocessing_to_folder(folder, tmp_path / "applied", functions, kwargs, *documents, num_processes=0)
    assert _same_labels(tmp_path / "applied", recorded / "apply_out") > 0
