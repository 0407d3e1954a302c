"""Plans files: reading, inheritance, names of classes, and what happens when something is missing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.exceptions import ExtensionError, PlansError
from nnunet_lite.extensions import find_class
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PLANNERS_OF_PLANS, PlansManager, available_plans, plans_file


def make_plans(**configurations: Any) -> dict[str, Any]:
    base = {"data_identifier": "nnUNetPlans_3d_fullres", "batch_size": 2, "patch_size": [4, 4, 4], "spacing": [1, 1, 1]}
    return {
        "dataset_name": "Dataset001_A",
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": base, **configurations},
    }


def test_a_dict_is_not_modified_and_unknown_keys_survive() -> None:
    plans = {**make_plans(), "my own": {"a": [1]}}
    before = json.dumps(plans)
    manager = PlansManager(plans)
    manager.get_configuration("3d_fullres").configuration["patch_size"].append(5)
    assert json.dumps(plans) == before
    assert manager.plans["my own"] == {"a": [1]}


@pytest.mark.parametrize(
    ("patch", "strides", "nearest"),
    [
        ([40, 56, 40], [[1, 1, 1], [2, 2, 2], [1, 2, 2]], None),
        ([40, 50, 3], [[1, 1, 1], [2, 2, 2], [1, 2, 2]], "[40, 48, 4]"),
        ([41, 51], [], None),
        ([41, 51], [1, 2], None),  # one number for all axes is not looked into
    ],
)
def test_a_patch_that_cannot_be_pooled_is_named(patch: list[int], strides: list[Any], nearest: str | None) -> None:
    plans = make_plans(x={"patch_size": patch, "architecture": {"arch_kwargs": {"strides": strides}}})
    configuration = PlansManager(plans).get_configuration("x")
    if nearest is None:
        configuration.require_poolable_patch()
        return
    with pytest.raises(PlansError, match="Configuration x: patch_size") as error:
        configuration.require_poolable_patch()
    assert "divisible by [2, 4, 4]" in str(error.value) and nearest in str(error.value)


def test_a_patch_of_which_one_voxel_is_left_is_named() -> None:
    kwargs = {"strides": [[1, 1], [2, 2], [2, 2]], "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
    plans = make_plans(x={"patch_size": [4, 4], "architecture": {"arch_kwargs": kwargs}})
    with pytest.raises(PlansError, match="leaves one voxel"):
        PlansManager(plans).get_configuration("x").require_poolable_patch()
    kwargs["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm2d"
    PlansManager(plans).get_configuration("x").require_poolable_patch()


@pytest.mark.parametrize("strides", [[[1, 1], [0, 2]], [[1, 1], ["2", 2]], [[1, 1], [1.5, 2]]])
def test_strides_that_are_none_are_named(strides: list[Any]) -> None:
    plans = make_plans(x={"patch_size": [40, 40], "architecture": {"arch_kwargs": {"strides": strides}}})
    with pytest.raises(PlansError, match="Configuration x of the plans: strides is .* expected two or three positive"):
        PlansManager(plans).get_configuration("x").require_poolable_patch()


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(make_plans(mine=["inherits_from", "3d_fullres"])))
    with pytest.raises(PlansError, match="configuration 'mine' is .* expected keys and values"):
        PlansManager(file)


def test_a_parent_that_is_no_name() -> None:
    with pytest.raises(PlansError, match=r"'x' inherits from \[1\], which does not exist"):
        PlansManager(make_plans(x={"inherits_from": [1]})).get_configuration("x")


def test_inheritance_golden_facts() -> None:
    manager = PlansManager(
        make_plans(x={"inherits_from": "3d_fullres", "batch_size": 4}, y={"inherits_from": "x", "spacing": [2, 2, 2]})
    )
    y = manager.get_configuration("y")
    assert (y.batch_size, y.spacing, y.data_identifier) == (4, [2, 2, 2], "nnUNetPlans_3d_fullres")
    assert y.configuration["inherits_from"] == "x"
    chain = {"2d": {"inherits_from": "3d_fullres", "patch_size": [4, 6], "spacing": [1, 1]}}
    c = PlansManager(make_plans(**chain, c={"inherits_from": "2d", "batch_size": 7})).get_configuration("c")
    assert (c.patch_size, c.batch_size, c.data_identifier) == ([4, 6], 7, "nnUNetPlans_3d_fullres")


def test_inherited_blocks_are_replaced_as_a_whole() -> None:
    base = {"architecture": {"network_class_name": "a", "arch_kwargs": {"n_stages": 3}}}
    child = {"inherits_from": "base", "architecture": {"network_class_name": "b", "arch_kwargs": {}}}
    manager = PlansManager(make_plans(base=base, child=child))
    assert manager.get_configuration("child").configuration["architecture"] == child["architecture"]


@pytest.mark.parametrize(
    ("configurations", "message"),
    [
        ({"a": {"inherits_from": "a"}}, "circle: a -> a"),
        ({"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}, "circle: a -> b -> a"),
        ({"a": {"inherits_from": "nowhere"}}, "inherits from 'nowhere', which does not exist; there are: 3d_f"),
    ],
)
def test_broken_inheritance(configurations: dict[str, Any], message: str) -> None:
    with pytest.raises(PlansError, match=message):
        PlansManager(make_plans(**configurations)).get_configuration("a")


def test_unknown_configuration_lists_those_that_exist() -> None:
    with pytest.raises(PlansError, match="no configuration '3d_fulres'; they have: 3d_fullres, 2d"):
        PlansManager(make_plans(**{"2d": {}})).get_configuration("3d_fulres")


def test_a_configuration_is_one_object_and_stays_writable() -> None:
    manager = PlansManager(make_plans())
    configuration = manager.get_configuration("3d_fullres")
    configuration.configuration["batch_size"] = 9
    assert manager.get_configuration("3d_fullres") is configuration
    assert configuration.batch_size == 9


def test_stages_of_a_cascade() -> None:
    manager = PlansManager(
        make_plans(low={"next_stage": "high"}, many={"next_stage": ["a", "b"]}, high={"previous_stage": "low"})
    )
    assert manager.get_configuration("low").next_stage_names == ["high"]
    assert manager.get_configuration("many").next_stage_names == ["a", "b"]
    assert manager.get_configuration("high").next_stage_names is None
    assert manager.get_configuration("high").previous_stage_name == "low"
    assert manager.get_configuration("low").previous_stage_name is None


def test_missing_keys_are_named() -> None:
    manager = PlansManager(make_plans())
    with pytest.raises(PlansError, match="3d_fullres of the plans has no 'batch_dice'"):
        _ = manager.get_configuration("3d_fullres").batch_dice
    with pytest.raises(PlansError, match="no key 'transpose_forward'"):
        _ = manager.transpose_forward


def test_label_manager_is_found_by_name_and_defaults() -> None:
    dataset_json = {"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1, 2]}
    manager = PlansManager(make_plans()).get_label_manager(dataset_json)
    assert type(manager).__name__ == LabelManager.__name__ and manager.has_regions
    forced = PlansManager(make_plans()).get_label_manager(dataset_json, force_use_labels=True)
    assert not forced.has_regions
    with pytest.raises(ExtensionError, match="LabelManger"):
        PlansManager({**make_plans(), "label_manager": "LabelManger"}).get_label_manager(dataset_json)


def test_pickling_leaves_cached_classes_behind() -> None:
    configuration = PlansManager(make_plans()).get_configuration("3d_fullres")
    configuration.__dict__["resampling_fn_data"] = lambda: None  # as if looked up from a user's folder
    copy = pickle.loads(pickle.dumps(configuration))
    assert copy.configuration == configuration.configuration
    assert "resampling_fn_data" not in copy.__dict__


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / "Dataset001_A"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(make_plans()))
    (folder / "dataset.json").write_text("{}")
    (folder / "splits_final.json").write_text("[]")
    (folder / "broken.json").write_text("{")
    assert available_plans(folder) == ["nnUNetPlans"]
    assert PlansManager(plans_file("Dataset001_A", "nnUNetPlans")).dataset_name == "Dataset001_A"
    with pytest.raises(PlansError, match="no plans 'mine' .*: nnUNetPlans"):
        plans_file("Dataset001_A", "mine")
    with pytest.raises(PlansError, match="plans in that folder: nnUNetPlans"):
        PlansManager(folder / "mine.json")
    with pytest.raises(PlansError, match="no JSON file"):
        PlansManager(folder / "broken.json")
    with pytest.raises(PlansError, match="no plans file"):
        PlansManager(folder / "dataset.json")
    with pytest.raises(PlansError, match="configurations"):
        PlansManager({})


def test_golden_plans_are_read(goldens: Path) -> None:
    manager = PlansManager(goldens / "Dataset900_Torso" / "nnUNetPlans.json")
    assert manager.available_configurations == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert manager.experiment_planner_name == "ExperimentPlanner"
    assert manager.original_median_shape_after_transp == [160, 320, 320]
    assert manager.transpose_forward == manager.transpose_backward == [0, 1, 2]
    cascade = manager.get_configuration("3d_cascade_fullres")
    assert cascade.data_identifier == "nnUNetPlans_3d_fullres"
    assert cascade.previous_stage_name == "3d_lowres"
    assert cascade.pool_op_kernel_sizes[1] == [1, 2, 2]
    assert cascade.network_arch_class_name.endswith("unet.PlainConvUNet")
    assert cascade.network_arch_init_kwargs["n_stages"] == 6
    assert cascade.network_arch_init_kwargs_req_import == ["conv_op", "norm_op", "dropout_op", "nonlin"]
    assert cascade.use_mask_for_norm == [False] and cascade.normalization_schemes == ["CTNormalization"]
    assert manager.foreground_intensity_properties_per_channel["0"]["max"] == 550.0


def test_plans_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / "Dataset004_A"
    folder.mkdir()
    for name in ("nnUNetPlans", "small"):
        (folder / f"{name}.json").write_text('{"configurations": {}}')
    with pytest.raises(
        PlansError, match=r": nnUNetPlans, small\); did you mean nnUNetPlans\? Else make them first: nnU"
    ):
        plans_file(folder.name, "nnUNetPlan")
    with pytest.raises(PlansError, match=r": nnUNetPlans, small\); make them first: nnU"):
        plans_file(folder.name, "other")
    for name, planner in PLANNERS_OF_PLANS.items():
        with pytest.raises(
            PlansError,
            match=rf"small\); make them first: nnUNetv2_plan_and_preprocess -d {folder.name} -pl {planner}$",
        ):
            plans_file(folder.name, name)
        assert find_class("planner", planner).default_plans_name == name
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nope"))
    with pytest.raises(
        PlansError, match=r"there is no folder nnUNet_preprocessed=.*nope; correct the variable, or mak"
    ):
        plans_file(folder.name, "nnUNetPlans")
