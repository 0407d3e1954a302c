"""The text of a dry run: every decision with its reason, within 100 columns; and the lines after planning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import complaint, succeed
from helpers.fingerprints import write_fingerprint

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.plan_report import describe_plans, preprocessed_bytes
from nnunet_lite.experiment_planning.residual_encoder_unet_planners import nnUNetPlannerResEncM


@pytest.fixture
def report(nnunet_folders: Any) -> Any:
    """Text for a dataset given by its fingerprint; its raw folder holds no images."""

    def make(
        cases: Any, planner: Any = ExperimentPlanner, options: dict[str, Any] | None = None, **dataset: Any
    ) -> str:
        name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases, **dataset)
        instance = planner(name, **(options or {}))
        instance.dry_run = True
        text = describe_plans(instance, instance.plan_experiment())
        assert max(map(len, text.splitlines())) <= 100
        return " ".join(text.split())

    return make


SPLEEN = ([(100, 512, 512)] * 100, [(5, 0.78, 0.78)] * 100)
SMALL = ([(36, 50, 35)] * 260, [(1, 1, 1)] * 260)


def test_a_large_dataset(report: Any) -> None:
    text = report(SPLEEN, channels=["CT", "T2", "T2"], relative_size=0.5)
    for part in (
        "Dataset001_A: plans nnUNetPlans by ExperimentPlanner, for 8 GB of GPU memory",
        "training cases 100",
        "channels, labels 3 and 2 labels",
        "SimpleITKIO, by the ending .nii.gz only",
        "all 100 x 512 x 512 voxels",
        "target spacing 5 x 0.78 x 0.78 mm: median; of the coarse axis 0 the 10th percentile",
        "axis order [0, 1, 2]: kept",
        "channel 0 CT: CTNormalization",
        "channel 1 T2: ZScoreNormalization, inside the nonzero region only (and 1 more)",
        "keeps 50% of the median image; below 75 %",
        "patch tried first 512 x 512 112 x 320 x 320 80 x 512 x 512",
        "patch 512 x 512 64 x 192 x 160 40 x 224 x 192",
        "limited by image size GPU memory GPU memory",
        "shortened 0 times 10 times 15 times",
        "stages 8 6 6",
        "batch Dice yes no yes",
        "folder nnUNetPlans_2d nnUNetPlans_3d_lowres nnUNetPlans_3d_fullres",
        "3d_cascade_fullres: inherits from 3d_fullres, previous stage 3d_lowres",
        "3d_lowres made, with its cascade: a patch of 3d_fullres shows 7% of the median image, less than 25%",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("cases", "options", "dataset", "parts"),
    [
        (SMALL, {}, {}, ["dataset size", "dataset allows 366 (5%) 9 (5%)", "none: a patch of 3d_fullres shows 100%"]),
        (SMALL, {"overwrite_target_spacing": [1, 1, 2]}, {}, ["given by overwrite_target_spacing", ": axis 2, the"]),
        (SMALL, {"suppress_transpose": True}, {}, ["transposing is suppressed"]),
        (SMALL, {"gpu_memory_target_in_gb": 1e-6}, {}, ["smallest possible", "the minimum"]),
        (SMALL, {}, {"overwrite_image_reader_writer": "NibabelIO"}, ["NibabelIO, named in dataset.json"]),
        (SMALL, {}, {"num_training": 300}, ["260 in the fingerprint, numTraining says 300"]),
        (([(230,) * 3] * 100, [(1,) * 3] * 100), {}, {}, ["3d_lowres would have more than half as many voxels"]),
        (([(1, 64, 80)] * 9, [(999, 1, 1)] * 9), {}, {"file_ending": ".png"}, ["NaturalImage2DIO", "single slice"]),
        (SMALL, {}, {"labels": {"background": 0, "w": [1, 2], "c": 2, "ignore": 3}, "regions_class_order": [1, 2]},
         ["1 and 2 regions, an ignore label"]),
    ],
)  # fmt: skip
def test_reasons(report: Any, cases: Any, options: Any, dataset: Any, parts: list[str]) -> None:
    text = report(cases, options=options, **dataset)
    for part in parts:
        assert part in text, part


def test_ones_own_decisions_are_named(report: Any) -> None:
    class Mine(nnUNetPlannerResEncM):
        def determine_transpose(self) -> tuple[list[int], list[int]]:
            return [1, 0, 2], [1, 0, 2]

        def get_plans_for_configuration(self, spacing: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            plans = super().get_plans_for_configuration(spacing, *args, **kwargs)
            self.notes.clear()
            return plans

    text = report(([(36, 50, 35)] * 5 + [(36, 60, 35)], [(1, 1, 1)] * 6), Mine)
    assert "median 36 x 50 x 35, from 36 x 50 x 35 to 36 x 60 x 35 voxels" in text
    assert "decided by Mine" in text and "limited by Mine Mine" in text


def test_bytes_of_preprocessed_cases(nnunet_folders: Any) -> None:
    cases = ([(10, 20, 30), (20, 20, 30)], [(2, 1, 1), (2, 1, 1)])
    name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases, channels=["CT", "T2"])
    planner = ExperimentPlanner(name, overwrite_target_spacing=[1, 1, 1])
    planner.dry_run = True
    plans = planner.plan_experiment()
    voxels = 20 * 20 * 30 + 40 * 20 * 30
    assert preprocessed_bytes(planner, plans, plans["configurations"]["3d_fullres"]) == voxels * (2 * 4 + 2)
    assert preprocessed_bytes(planner, plans, plans["configurations"]["2d"]) == voxels // 2 * (2 * 4 + 2)


def test_the_command_writes_nothing(nnunet_folders: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither beside a fingerprint alone nor beside plans that are there."""
    name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *SPLEEN)
    folder = nnunet_folders.preprocessed / name
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    for planner in ("ExperimentPlanner", "nnUNetPlannerResEncL", "nnUNetPlannerResEncL_torchres_sepz"):
        succeed("nnUNetv2_plan_experiment", "-d", "1", "-pl", planner, "--dry-run")
        text = capfd.readouterr().out
        assert "This was a dry run: nothing was written." in text and "were saved" not in text
        assert max(len(line) for line in text.splitlines() if not line.startswith("Planning the default")) <= 100
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    (nnunet_folders.raw / name / "dataset.json").rename(folder / "dataset.json")
    succeed("nnUNetv2_plan_experiment", "-d", "1", "--dry-run")
    (folder / "dataset.json").unlink()
    assert "There is no" in complaint(capfd, "nnUNetv2_plan_experiment", "-d", "1", "--dry-run")


def test_a_dry_run_decides_what_planning_decides(nnunet_folders: Any) -> None:
    name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *SPLEEN)
    dry = nnUNetPlannerResEncM(name)
    dry.dry_run = True
    decided = json.loads(json.dumps(dry.plan_experiment()))
    nnUNetPlannerResEncM(name).plan_experiment()
    assert json.loads((nnunet_folders.preprocessed / name / "nnUNetResEncUNetMPlans.json").read_text()) == decided


FOREIGN = """
from pathlib import Path
from nnunet_lite import ExperimentPlanner

class WritesElsewhere(ExperimentPlanner):
    def save_plans(self, plans):
        Path(self.preprocessed_folder, "elsewhere.json").write_text("{}")

class SharesNothing:
    def __init__(self, name, **options):
        pass

    def plan_experiment(self):
        raise AssertionError("it would write its plans")
"""


def test_dry_runs_of_planners_that_write_otherwise(
    nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *SMALL)
    classes = tmp_path / "classes"
    classes.mkdir()
    (classes / "planners_that_write.py").write_text(FOREIGN)
    monkeypatch.setenv("nnUNet_extTrainer", str(classes))
    before = sorted((nnunet_folders.preprocessed / name).iterdir())
    succeed("nnUNetv2_plan_experiment", "-d", "1", "-pl", "WritesElsewhere", "--dry-run")
    assert sorted((nnunet_folders.preprocessed / name).iterdir()) == before
    said = complaint(capfd, "nnUNetv2_plan_experiment", "-d", "1", "-pl", "SharesNothing", "--dry-run")
    assert "SharesNothing is not derived from ExperimentPlanner" in said


def test_a_few_lines_after_planning(nnunet_folders: Any, capfd: pytest.CaptureFixture[str]) -> None:
    write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *SPLEEN)
    succeed("nnUNetv2_plan_experiment", "-d", "1")
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines[-4:] == [
        "2d patch 512 x 512, batch 12, spacing 0.78 x 0.78 mm, 8 stages",
        "3d_lowres patch 64 x 192 x 160, batch 2, spacing 5 x 1.451 x 1.451 mm, 6 stages",
        "3d_fullres patch 40 x 224 x 192, batch 2, spacing 5 x 0.78 x 0.78 mm, 6 stages",
        "3d_cascade_fullres inherits from 3d_fullres, previous stage 3d_lowres",
    ]
