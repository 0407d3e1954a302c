"""documentation/dataset-format.md: its examples pass the check, its list of kinds is that of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import write_image

from nnunet_lite.experiment_planning.integrity_report import as_document, as_text
from nnunet_lite.experiment_planning.verify_dataset_integrity import check_dataset
from nnunet_lite.plans.faults import KINDS

PAGE = (Path(__file__).parent.parent / "documentation" / "dataset-format.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def build(folder: Path, document: dict) -> Path:
    """A dataset of two cases (or those that are listed) that holds every label."""
    document = {**document, "numTraining": len(document.get("dataset", "ab"))}
    values = [
        value for labels in document["labels"].values() for value in (labels if type(labels) is list else [labels])
    ]
    rng = np.random.default_rng(0)
    for case in document.get("dataset", ("a", "b")):
        seg = np.resize(np.array(values, np.uint8), (4, 6, 5))
        for channel in document["channel_names"]:
            file = folder / "imagesTr" / f"{case}_{int(channel):04d}.nii.gz"
            write_image(file, rng.random(seg.shape, np.float32), (1, 1, 1))
        write_image(folder / "labelsTr" / f"{case}.nii.gz", seg, (1, 1, 1))
    for case, entry in document.get("dataset", {}).items():
        entry.update(images=[f"$FOLDER/imagesTr/{case}_0000.nii.gz"], label=f"labelsTr/{case}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: ", ".join(example["labels"]))
def test_examples_pass_the_check(tmp_path, monkeypatch, example):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    check = check_dataset(build(tmp_path, example), 0, show_progress=False)
    assert check.examination.findings == []
    if "regions_class_order" in example:
        shown = [line.split() for line in as_text(check).splitlines() if line.startswith("  ")]
        assert shown == [
            line.split() for line in re.findall(r"^Regions: .*?\n((?:  .*\n)+)", PAGE, re.M)[0].splitlines()
        ]


def test_every_kind_is_listed():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (fault|warning) \|", PAGE, re.MULTILINE)
    assert rows == [(name, "fault" if kind.is_fault else "warning") for name, kind in KINDS.items()]


def test_keys_of_the_report_are_described(tmp_path):
    report = as_document([check_dataset(tmp_path, 0, show_progress=False)])
    finding = report["datasets"][0]["findings"][0]
    for key in (*report, *report["datasets"][0], *finding):
        assert re.search(rf"`[^`]*\b{key}\b[^`]*`", PAGE), key
