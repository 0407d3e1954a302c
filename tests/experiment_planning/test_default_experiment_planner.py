"""Golden facts of nnU-Net v2 2.8.1 about whole plans, and what happens around writing them."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fingerprints import write_fingerprint

from nnunet_lite.exceptions import ArgumentError, DatasetError, PlansError
from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)

LIVER = ([(432, 512, 512)] * 40, [(1, 0.767, 0.767)] * 40)
HIPPOCAMPUS = ([(36, 50, 35)] * 260, [(1, 1, 1)] * 260)
PROSTATE = ([(20, 320, 320)] * 32, [(3.6, 0.625, 0.625)] * 32)
HEART = ([(9, 237, 208)] * 200, [(10, 1.5625, 1.5625)] * 100 + [(5, 1.5, 1.5)] * 100)
SPLEEN = ([(100, 512, 512)] * 100, [(5, 0.78, 0.78)] * 100)


def cube(edge: int, n: int) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    return [(edge,) * 3] * n, [(1.0,) * 3] * n


class _Reader:
    __name__ = "SimpleITKIO"


@pytest.fixture
def plan(nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plan a dataset given by its fingerprint; keyword arguments go to the dataset, `options` to the planner."""
    monkeypatch.setattr(ExperimentPlanner, "determine_reader_writer", lambda self: _Reader())

    def run(
        cases: tuple[Any, Any], planner: Any = ExperimentPlanner, options: dict[str, Any] | None = None, **dataset: Any
    ) -> dict[str, Any]:
        name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases, **dataset)
        result: dict[str, Any] = planner(name, **(options or {})).plan_experiment()
        return result

    return run


def summary(plans: dict[str, Any], name: str) -> tuple[list[int], int]:
    configuration = plans["configurations"][name]
    return configuration["patch_size"], configuration["batch_size"]


def architecture(plans: dict[str, Any], name: str) -> dict[str, Any]:
    kwargs: dict[str, Any] = plans["configurations"][name]["architecture"]["arch_kwargs"]
    return kwargs


def code(values: list[list[int]]) -> str:
    return ",".join("".join(map(str, v)) for v in values)


def test_liver(plan: Any) -> None:
    plans = plan(LIVER)
    assert list(plans["configurations"]) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert summary(plans, "3d_fullres") == ([128] * 3, 2)
    assert architecture(plans, "3d_fullres")["n_stages"] == 6
    lowres = plans["configurations"]["3d_lowres"]
    assert summary(plans, "3d_lowres") == ([128] * 3, 2)
    assert lowres["median_image_size_in_voxels"] == [178, 211, 211]
    assert lowres["spacing"] == [2.4272624711896627, 1.8617103154024706, 1.8617103154024706]
    assert lowres["next_stage"] == "3d_cascade_fullres"
    cascade = plans["configurations"]["3d_cascade_fullres"]
    assert cascade == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    assert summary(plans, "2d") == ([512, 512], 12)
    assert architecture(plans, "2d")["features_per_stage"] == [32, 64, 128, 256, 512, 512, 512, 512]
    assert [plans["configurations"][c]["batch_dice"] for c in ("2d", "3d_lowres", "3d_fullres")] == [True, False, True]


def test_hippocampus(plan: Any) -> None:
    plans = plan(HIPPOCAMPUS, channels=["MRI"])
    assert list(plans["configurations"]) == ["2d", "3d_fullres"]
    assert summary(plans, "3d_fullres") == ([40, 56, 40], 9)
    assert architecture(plans, "3d_fullres")["features_per_stage"] == [32, 64, 128, 256]
    assert summary(plans, "2d") == ([56, 40], 366)
    assert plans["configurations"]["3d_fullres"]["batch_dice"] is False


def test_prostate(plan: Any) -> None:
    plans = plan(PROSTATE, channels=["T2", "ADC"])
    assert summary(plans, "3d_fullres") == ([20, 320, 256], 2)
    kwargs = architecture(plans, "3d_fullres")
    assert code(kwargs["strides"]) == "111,122,122,222,222,122,122"
    assert code(kwargs["kernel_sizes"]) == "133,133,333,333,333,333,333"
    assert summary(plans, "2d") == ([320, 320], 32)
    assert architecture(plans, "2d")["n_stages"] == 7


def test_heart_takes_the_tenth_percentile_of_slice_thickness(plan: Any) -> None:
    plans = plan(HEART)
    fullres = plans["configurations"]["3d_fullres"]
    assert fullres["spacing"] == [5, 1.53125, 1.53125]
    assert plans["original_median_spacing_after_transp"][0] == 7.5
    assert fullres["median_image_size_in_voxels"] == [13.5, 237, 208]
    assert summary(plans, "3d_fullres") == ([14, 256, 224], 5)
    assert code(architecture(plans, "3d_fullres")["strides"]) == "111,122,222,122,122,122"
    assert summary(plans, "2d") == ([256, 224], 57)


def test_brain_tumours(plan: Any) -> None:
    plans = plan(
        ([(138, 170, 138)] * 484, [(1, 1, 1)] * 484),
        channels=["T1", "T1gd", "T2", "FLAIR"],
        labels={"background": 0, "wt": [1, 2, 3], "tc": [2, 3], "et": [3]},
        regions_class_order=[1, 2, 3],
        relative_size=0.4,
    )
    assert summary(plans, "3d_fullres") == ([128] * 3, 2)
    assert summary(plans, "2d") == ([192, 160], 105)
    assert plans["configurations"]["2d"]["use_mask_for_norm"] == [True] * 4


def test_spleen(plan: Any) -> None:
    plans = plan(SPLEEN)
    assert summary(plans, "3d_fullres") == ([40, 224, 192], 2)
    assert code(architecture(plans, "3d_fullres")["strides"]) == "111,122,122,222,222,222"
    assert code(architecture(plans, "3d_fullres")["kernel_sizes"]) == "133,133,333,333,333,333"
    lowres = plans["configurations"]["3d_lowres"]
    assert lowres["patch_size"] == [64, 192, 160]
    assert lowres["spacing"] == [5, 1.451029765933408, 1.451029765933408]
    assert lowres["median_image_size_in_voxels"] == [100, 275, 275]


@pytest.mark.parametrize(("cases", "steps"), [(SPLEEN, 21), (cube(256, 100), 8), (cube(300, 100), 14)])
def test_steps_to_the_lowres_spacing(plan: Any, nnunet_folders: Any, cases: Any, steps: int) -> None:
    plan(cases)
    planner = ExperimentPlanner("Dataset001_A")
    planner.plan_experiment()
    assert len([spacing for spacing in planner.notes if len(spacing) == 3]) == steps + 1


def test_a_lowres_that_gains_too_little_is_dropped(plan: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        plan(cube(230, 100))
    assert "No 3d_lowres: [198, 198, 198] is more than half" in caplog.text


def test_target_spacing_never_gets_finer_than_the_other_axes(plan: Any) -> None:
    shapes = [(60, 512, 512)] * 50 + [(400, 512, 512)] * 10
    plans = plan((shapes, [(5, 0.78, 0.78)] * 50 + [(0.7, 0.7, 0.7)] * 10))
    fullres, lowres = (plans["configurations"][name] for name in ("3d_fullres", "3d_lowres"))
    assert fullres["spacing"] == pytest.approx([0.78001, 0.78, 0.78], abs=1e-12)
    assert fullres["median_image_size_in_voxels"] == [385, 512, 512]
    assert fullres["patch_size"] == [112, 160, 128]
    assert lowres["spacing"] == [1.7846064663518215, 1.7845835870750653, 1.7845835870750653]
    assert lowres["median_image_size_in_voxels"] == [168, 224, 224]


@pytest.mark.parametrize(
    ("shape", "spacing", "forward", "backward", "fullres", "flat"),
    [
        ((200, 200, 30), (0.8, 0.8, 5), [2, 0, 1], [1, 2, 0], ([32, 224, 224], 2), ([224, 224], 60)),
        ((30, 200, 200), (0.8, 5, 0.8), [1, 0, 2], [1, 0, 2], ([80, 32, 224], 5), ([32, 224], 419)),
    ],
)
def test_the_coarsest_axis_comes_first(
    plan: Any, shape: Any, spacing: Any, forward: Any, backward: Any, fullres: Any, flat: Any
) -> None:
    plans = plan(([shape] * 50, [spacing] * 50))
    assert (plans["transpose_forward"], plans["transpose_backward"]) == (forward, backward)
    assert summary(plans, "3d_fullres") == fullres
    assert summary(plans, "2d") == flat


def test_transposing_can_be_suppressed(plan: Any) -> None:
    plans = plan(([(200, 200, 30)] * 50, [(0.8, 0.8, 5)] * 50), options={"suppress_transpose": True})
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["configurations"]["3d_fullres"]["spacing"] == [0.8, 0.8, 5]


@pytest.mark.parametrize(
    ("edge", "n", "fullres", "flat"),
    [
        (96, 20, ([96] * 3, 2), ([96, 96], 96)),
        (160, 100, ([128] * 3, 2), ([160, 160], 127)),
        (230, 100, ([128] * 3, 2), ([256, 256], 49)),
    ],
)
def test_cubes_without_lowres(plan: Any, edge: int, n: int, fullres: Any, flat: Any) -> None:
    plans = plan(cube(edge, n))
    assert list(plans["configurations"]) == ["2d", "3d_fullres"]
    assert summary(plans, "3d_fullres") == fullres
    assert summary(plans, "2d") == flat


@pytest.mark.parametrize(
    ("edge", "spacing", "median"), [(256, 1.2667700813876164, [202] * 3), (300, 1.512589724855112, [198] * 3)]
)
def test_cubes_with_lowres(plan: Any, edge: int, spacing: float, median: list[int]) -> None:
    plans = plan(cube(edge, 100))
    lowres = plans["configurations"]["3d_lowres"]
    assert lowres["spacing"] == [spacing] * 3
    assert lowres["median_image_size_in_voxels"] == median
    assert lowres["patch_size"] == [128] * 3


def test_fractional_medians(plan: Any) -> None:
    plans = plan(([(20, 101, 100), (21, 100, 100)] * 5, [(1, 1, 1)] * 10))
    assert plans["configurations"]["3d_fullres"]["median_image_size_in_voxels"] == [20.5, 100.5, 100]
    assert summary(plans, "3d_fullres") == ([24, 112, 112], 2)
    assert code(architecture(plans, "3d_fullres")["strides"]) == "111,222,222,122,122"
    assert summary(plans, "2d") == ([112, 112], 8)


def test_2d_images(plan: Any) -> None:
    plans = plan(([(1, 64, 80)] * 2 + [(1, 72, 80)] * 2, [(999, 1, 1)] * 4))
    assert list(plans["configurations"]) == ["2d"]
    assert summary(plans, "2d") == ([80, 80], 2)
    assert plans["configurations"]["2d"]["median_image_size_in_voxels"] == [68, 80]
    assert architecture(plans, "2d")["n_stages"] == 5


def test_images_too_small_to_be_pooled_get_a_larger_patch(plan: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Upstream plans patch 7x7 with a single stage, a network that cannot be built."""
    plans = plan(([(1, 7, 7)] * 10, [(999, 1, 1)] * 10))
    assert plans["configurations"]["2d"]["patch_size"] == [8, 8]
    assert architecture(plans, "2d")["n_stages"] == 2
    assert "cannot be pooled" in caplog.text


@pytest.mark.parametrize(
    ("planner", "patch", "batch_size", "stages", "last"),
    [(ExperimentPlanner, [896, 1792], 2, 9, [1, 2]), (nnUNetPlannerResEncM, [384, 704], 12, 7, [2, 2])],
)
def test_large_2d_images(plan: Any, planner: Any, patch: Any, batch_size: int, stages: int, last: Any) -> None:
    plans = plan(([(1, 1024, 2048)] * 100, [(999, 1, 1)] * 100), planner, channels=["R", "G", "B"])
    assert summary(plans, "2d") == (patch, batch_size)
    assert architecture(plans, "2d")["n_stages"] == stages
    assert architecture(plans, "2d")["strides"][-1] == last


@pytest.mark.parametrize(
    ("target", "patch", "flat"),
    [
        (4, [112, 112, 96], 16),
        (8, [128] * 3, 32),
        (11, [160, 160, 128], 43),
        (16, [192, 160, 160], 63),
        (24, [192] * 3, 95),
        (40, [256, 224, 224], 158),
    ],
)
def test_memory_targets(plan: Any, target: float, patch: list[int], flat: int) -> None:
    plans = plan(cube(300, 100), options={"gpu_memory_target_in_gb": target})
    assert summary(plans, "3d_fullres") == (patch, 2)
    assert summary(plans, "2d") == ([320, 320], flat)


@pytest.mark.parametrize(
    ("planner", "options", "fullres", "flat"),
    [
        (nnUNetPlannerResEncM, {}, ([20, 256, 256], 2), ([320, 320], 32)),
        (nnUNetPlannerResEncL, {}, ([20, 320, 320], 5), ([320, 320], 90)),
        (nnUNetPlannerResEncXL, {}, ([20, 320, 320], 8), ([320, 320], 133)),
        (ExperimentPlanner, {"gpu_memory_target_in_gb": 16}, ([20, 320, 320], 2), None),
    ],
)
def test_prostate_with_other_planners(plan: Any, planner: Any, options: Any, fullres: Any, flat: Any) -> None:
    plans = plan(PROSTATE, planner, options, channels=["T2", "ADC"])
    assert summary(plans, "3d_fullres") == fullres
    if flat is not None:
        assert summary(plans, "2d") == flat


@pytest.mark.parametrize(
    ("spacing", "patch", "median", "flat", "forward"),
    [
        ([1, 1, 1], [64, 192, 192], [72, 200, 200], [224, 224], [0, 1, 2]),
        (["1", "3", "1"], [80, 80, 224], [67, 72, 200], [80, 224], [1, 0, 2]),
    ],
)
def test_overwritten_target_spacing(
    plan: Any, spacing: Any, patch: Any, median: Any, flat: Any, forward: list[int]
) -> None:
    plans = plan(PROSTATE, options={"overwrite_target_spacing": spacing}, channels=["T2", "ADC"])
    fullres = plans["configurations"]["3d_fullres"]
    assert (fullres["patch_size"], fullres["median_image_size_in_voxels"]) == (patch, median)
    assert plans["configurations"]["2d"]["patch_size"] == flat
    assert plans["configurations"]["2d"]["spacing"] == [1, 1]
    assert plans["transpose_forward"] == forward


@pytest.mark.parametrize(
    ("planner", "fullres", "flat"),
    [(nnUNetPlannerResEncM, 58, 1618), (nnUNetPlannerResEncL, 178, 4554), (ResEncUNetPlanner, 9, 366)],
)
def test_batch_sizes_of_small_images(plan: Any, planner: Any, fullres: int, flat: int) -> None:
    plans = plan(HIPPOCAMPUS, planner)
    assert (summary(plans, "3d_fullres")[1], summary(plans, "2d")[1]) == (fullres, flat)


def test_batch_size_can_be_limited(plan: Any) -> None:
    class Limited(nnUNetPlannerResEncL):
        UNet_max_batch_size = 64

    assert summary(plan(HIPPOCAMPUS, Limited), "2d")[1] == 64


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.7499, [False, True, True, False, False, False]), (0.75, [False] * 6)]
)
def test_normalization_and_masks(plan: Any, ratio: float, expected: list[bool]) -> None:
    channels = ["ct", "CTA", "zScore", "noNorm", "rescale_to_0_1", "RGB_to_0_1"]
    plans = plan(HIPPOCAMPUS, channels=channels, relative_size=ratio)
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == [
        "CTNormalization",
        "ZScoreNormalization",
        "ZScoreNormalization",
        "NoNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    ]
    assert configuration["use_mask_for_norm"] == expected


def test_channels_are_taken_in_numeric_order(plan: Any) -> None:
    names = {"1": "CT", "0": "MRI", **{str(i): "noNorm" for i in range(2, 12)}, "10": "rescale_to_0_1"}
    plans = plan(HIPPOCAMPUS, channel_names=dict(reversed(names.items())))
    schemes = plans["configurations"]["2d"]["normalization_schemes"]
    assert schemes[:2] == ["ZScoreNormalization", "CTNormalization"]
    assert schemes[10] == "RescaleTo01Normalization"


@pytest.mark.parametrize(("dataset", "plans"), [
    ("Dataset004_Hippocampus", "nnUNetPlans"), ("Dataset004_Hippocampus", "nnUNetResEncUNetMPlans"),
    ("Dataset004_Hippocampus", "nnUNetResEncUNetLPlans"), ("Dataset004_Hippocampus", "nnUNetResEncUNetXLPlans"),
    ("Dataset900_Torso", "nnUNetPlans"),
])  # fmt: skip
def test_golden_plans_byte_by_byte(
    dataset: str, plans: str, goldens: Path, nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExperimentPlanner, "determine_reader_writer", lambda self: _Reader())
    files = ((nnunet_folders.raw, "dataset.json"), (nnunet_folders.preprocessed, "dataset_fingerprint.json"))
    for folder, file in files:
        (folder / dataset).mkdir()
        shutil.copy(goldens / dataset / file, folder / dataset)
    planner = {p.default_plans_name: p for p in (
        ExperimentPlanner, nnUNetPlannerResEncM, nnUNetPlannerResEncL, nnUNetPlannerResEncXL)}[plans]  # fmt: skip
    planner(dataset).plan_experiment()
    written = nnunet_folders.preprocessed / dataset / f"{plans}.json"
    assert written.read_text() == (goldens / dataset / f"{plans}.json").read_text()


def test_only_configurations_written_by_hand_survive_planning_again(
    plan: Any, nnunet_folders: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plan(cube(256, 100))
    file = nnunet_folders.preprocessed / "Dataset001_A" / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 5}
    plans["configurations"]["orphan"] = {"inherits_from": "3d_lowres"}
    file.write_text(json.dumps(plans))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        plan(cube(96, 20))
    configurations = json.loads(file.read_text())["configurations"]
    assert list(configurations) == ["2d", "3d_fullres", "mine", "orphan"]
    assert configurations["mine"] == {"inherits_from": "3d_fullres", "batch_size": 5}
    assert "orphan inherits from 3d_lowres, which is not planned" in caplog.text


def test_a_lowres_of_ones_own_survives(plan: Any, nnunet_folders: Any) -> None:
    plan(cube(96, 20))
    file = nnunet_folders.preprocessed / "Dataset001_A" / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    own = {"inherits_from": "3d_fullres", "spacing": [2, 2, 2], "next_stage": "3d_cascade_fullres"}
    plans["configurations"]["3d_lowres"] = own
    file.write_text(json.dumps(plans))
    plan(cube(96, 20))
    assert json.loads(file.read_text())["configurations"]["3d_lowres"] == own


def test_dataset_json_and_splits_are_copied_as_they_are(plan: Any, nnunet_folders: Any) -> None:
    plan(HIPPOCAMPUS)
    raw, preprocessed = nnunet_folders.raw / "Dataset001_A", nnunet_folders.preprocessed / "Dataset001_A"
    assert (preprocessed / "dataset.json").read_bytes() == (raw / "dataset.json").read_bytes()
    splits = [{"train": ["a", "b"], "val": ["c"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    plan(HIPPOCAMPUS)
    assert json.loads((preprocessed / "splits_final.json").read_text()) == splits
    more = [{"train": ["b", "a"], "val": ["c"]}, {"train": ["a"], "val": ["b"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(more))
    plan(HIPPOCAMPUS)
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["c"]}]))
    with pytest.raises(DatasetError, match="differ in fold 0"):
        plan(HIPPOCAMPUS)


def test_identifier_preprocessor_and_planner_are_stored(plan: Any, nnunet_folders: Any) -> None:
    options = {"plans_name": "mine", "preprocessor_name": "MyPreprocessor"}
    plans = plan(HIPPOCAMPUS, options=options)
    assert (nnunet_folders.preprocessed / "Dataset001_A" / "mine.json").is_file()
    assert plans["plans_name"] == "mine"
    assert plans["experiment_planner_used"] == "ExperimentPlanner"
    assert plans["configurations"]["2d"]["preprocessor_name"] == "MyPreprocessor"
    assert plans["configurations"]["2d"]["data_identifier"] == "mine_2d"


@pytest.mark.parametrize("spacing", [[1, 1], [1, 0, 1], [1, 1, math.inf], ["a", "b", "c"], [1, 1, -1]])
def test_unusable_target_spacing(plan: Any, spacing: list[Any]) -> None:
    with pytest.raises(ArgumentError, match="three positive numbers"):
        plan(HIPPOCAMPUS, options={"overwrite_target_spacing": spacing})


def test_unusable_memory_target(plan: Any) -> None:
    with pytest.raises(ArgumentError, match="positive number of GB"):
        plan(HIPPOCAMPUS, options={"gpu_memory_target_in_gb": 0})


def test_a_tiny_memory_target_still_gives_a_network(plan: Any, caplog: pytest.LogCaptureFixture) -> None:
    plans = plan(cube(300, 100), options={"gpu_memory_target_in_gb": 1e-6})
    assert min(plans["configurations"]["3d_fullres"]["patch_size"]) >= 1
    assert all(architecture(plans, name)["n_stages"] > 1 for name in ("2d", "3d_fullres", "3d_lowres"))
    warned = [record.getMessage().split(":")[0] for record in caplog.records if "too small for" in record.msg]
    assert warned == ["2d", "3d_lowres", "3d_fullres"]


def test_labels_with_gaps_are_refused(plan: Any) -> None:
    with pytest.raises(DatasetError, match=r"\[0, 1, 5\], expected consecutive"):
        plan(HIPPOCAMPUS, labels={"background": 0, "a": 1, "b": 5})


def test_missing_fingerprint(plan: Any, nnunet_folders: Any) -> None:
    plan(HIPPOCAMPUS)
    (nnunet_folders.preprocessed / "Dataset001_A" / "dataset_fingerprint.json").unlink()
    with pytest.raises(PlansError, match="extract the fingerprint first"):
        ExperimentPlanner("Dataset001_A")


def test_a_planner_of_ones_own_sets_attributes_as_upstreams_do(plan: Any) -> None:
    class Network:
        pass

    class Mine(ExperimentPlanner):
        def __init__(self, dataset_name_or_id: str, gpu_memory_target_in_gb: float = 8, **kwargs: Any) -> None:
            super().__init__(dataset_name_or_id, gpu_memory_target_in_gb, **kwargs)
            self.UNet_base_num_features = 16
            self.UNet_class = Network
            self.UNet_blocks_per_stage_encoder = (1,)

        def determine_fullres_target_spacing(self) -> Any:
            return np.array([2.0, 2.0, 2.0])

    plans = plan(HIPPOCAMPUS, Mine)
    fullres = plans["configurations"]["3d_fullres"]
    assert fullres["spacing"] == [2, 2, 2]
    assert fullres["architecture"]["network_class_name"].endswith("Network")
    assert architecture(plans, "3d_fullres")["features_per_stage"][0] == 16
    assert set(architecture(plans, "3d_fullres")["n_conv_per_stage"]) == {1}


def test_plans_without_raw_images(plan: Any, nnunet_folders: Any) -> None:
    """With raw data on another machine: dataset.json of an earlier planning and the fingerprint are enough."""
    before = plan(HIPPOCAMPUS)
    shutil.rmtree(nnunet_folders.raw / "Dataset001_A")
    after = ExperimentPlanner("Dataset001_A").plan_experiment()
    assert after == before


def test_a_search_of_ones_own_gets_what_upstream_passes(plan: Any) -> None:
    """Arrays that can be computed with, and the cache that upstream's signature demands."""
    seen: list[Any] = []

    class Mine(ExperimentPlanner):
        def get_plans_for_configuration(  # type: ignore[override]
            self,
            spacing: Any,
            median_shape: Any,
            data_identifier: str,
            approximate_n_voxels_dataset: float,
            _cache: Any,
        ) -> dict[str, Any]:
            seen.append((1 / spacing, np.array(median_shape) / 2, _cache))
            return super().get_plans_for_configuration(
                spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
            )

    plans = plan(cube(256, 100), Mine)
    assert len(seen) == 2 + 8
    assert {type(value) for value in plans["configurations"]["3d_lowres"]["spacing"]} == {float}
    kwargs = architecture(plans, "3d_fullres")
    name = plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"]
    assert Mine.static_estimate_VRAM_usage([128] * 3, 1, 3, name, kwargs, ("conv_op",)) == 452_796_416


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys, nnunet_lite.experiment_planning.resampling_planners; "
        "print({'torch', 'skimage', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
