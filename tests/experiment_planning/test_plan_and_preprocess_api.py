"""The functions behind the planning commands: which classes they call with what, and what they refuse."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import make_dataset, make_fixture_a, make_fixture_b
from helpers.fingerprints import write_fingerprint

from nnunet_lite.cli import planning
from nnunet_lite.exceptions import ArgumentError, ExtensionError, PlansError
from nnunet_lite.experiment_planning import plan_and_preprocess_api as api
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.imageio.tif_reader_writer import Tiff3DIO
from nnunet_lite.plans.plans_manager import PlansManager

SMALL = ([(36, 50, 35)] * 6, [(1, 1, 1)] * 6)
LARGE = ([(256, 256, 256)] * 6, [(1, 1, 1)] * 6)


class Recorder:
    """Stands in for a preprocessor and remembers what it is asked to do."""

    calls: list[tuple[Any, ...]] = []
    show_progress: bool
    max_ram: int | None

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose

    def run(self, dataset: str, configuration: str, plans: str, num_processes: int) -> None:
        settings = (self.verbose, self.show_progress, self.max_ram)
        self.calls.append((dataset, configuration, plans, num_processes, *settings))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr("nnunet_lite.plans.configuration_manager.find_class", lambda kind, name: Recorder)
    monkeypatch.setattr(api, "find_class", lambda kind, name: Recorder if kind == "preprocessor" else FIND(kind, name))
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(api, "copy_reference_labels", lambda name, reader, part: None)
    return Recorder.calls


FIND = api.find_class


def planned(folders: Any, cases: Any = SMALL, **edits: Any) -> str:
    """A dataset with plans; `edits` are configurations added to them."""
    name = write_fingerprint(folders.raw, folders.preprocessed, *cases)
    for index in range(6):
        (folders.raw / name / "imagesTr" / f"case_{index:02d}_0000.nii.gz").touch()
        (folders.raw / name / "labelsTr" / f"case_{index:02d}.nii.gz").write_text(f"label {index}")
    file = folders.preprocessed / name / "nnUNetPlans.json"
    base = {"data_identifier": "nnUNetPlans_{}", "preprocessor_name": "DefaultPreprocessor", "spacing": [1, 1, 1]}
    own = [n for n in ("2d", "3d_lowres", "3d_fullres") if cases is LARGE or n != "3d_lowres"]
    configurations = {n: {**base, "data_identifier": f"nnUNetPlans_{n}"} for n in own}
    plans = {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "configurations": {**configurations, **edits},
    }
    file.write_text(json.dumps(plans))
    (folders.preprocessed / name / "dataset.json").write_text((folders.raw / name / "dataset.json").read_text())
    return name


def test_default_processes_and_skipped_configurations(
    nnunet_folders: Any, recorded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = planned(nnunet_folders)
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        api.preprocess([1], show_progress_bar=False, max_ram=5)
    assert recorded == [
        (name, "2d", "nnUNetPlans", 8, False, False, 5),
        (name, "3d_fullres", "nnUNetPlans", 4, False, False, 5),
    ]
    assert "3d_lowres is not in plans nnUNetPlans (2d, 3d_fullres) and is skipped" in caplog.text


@pytest.mark.parametrize(
    ("given", "expected"), [(None, [8, 8, 4]), (3, [3] * 3), ([3], [3] * 3), ([1, 2, 3], [1, 3, 2]), ([0], [0] * 3)]
)
def test_numbers_of_processes(given: Any, expected: list[int], nnunet_folders: Any, recorded: Any) -> None:
    planned(nnunet_folders, LARGE)
    api.preprocess(["Dataset001_A"], configurations=["2d", "3d_fullres", "3d_lowres"], num_processes=given)
    assert {call[1]: call[3] for call in recorded} == dict(
        zip(("2d", "3d_lowres", "3d_fullres"), expected, strict=True)
    )


@pytest.mark.parametrize("given", [[1, 2], [], [-1]])
def test_numbers_of_processes_that_do_not_fit(given: list[int], nnunet_folders: Any, recorded: Any) -> None:
    planned(nnunet_folders)
    with pytest.raises(ArgumentError, match="one number for all|expected 0"):
        api.preprocess([1], num_processes=given)


def test_configurations_that_share_their_cases_are_preprocessed_once(nnunet_folders: Any, recorded: Any) -> None:
    planned(nnunet_folders, cascade={"inherits_from": "3d_fullres"}, other={"inherits_from": "2d", "batch_size": 7})
    api.preprocess([1], configurations=["cascade", "3d_fullres", "2d", "other"])
    assert [call[1] for call in recorded] == ["cascade", "2d"]


@pytest.mark.parametrize("asked", [["3d_fullres", "mine"], ["mine"], ["3d_fullres"]], ids=str)
def test_configurations_must_not_overwrite_each_others_cases(
    asked: list[str], nnunet_folders: Any, recorded: Any
) -> None:
    planned(nnunet_folders, mine={"inherits_from": "3d_fullres", "spacing": [2, 2, 2]})
    with pytest.raises(PlansError, match="3d_fullres and mine .* differ in spacing; give mine a data_identifier"):
        api.preprocess([1], configurations=asked)
    assert recorded == []


def test_nothing_to_preprocess(nnunet_folders: Any, recorded: Any) -> None:
    planned(nnunet_folders)
    with pytest.raises(PlansError, match="none of the configurations 3d_fulres; they have: 2d, 3d_fullres"):
        api.preprocess([1], configurations=["3d_fulres"])
    with pytest.raises(PlansError, match="no plans 'mine' .*: nnUNetPlans"):
        api.preprocess([1], "mine")
    assert recorded == []


def test_a_dataset_json_that_changed_is_warned_about(
    nnunet_folders: Any, recorded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = planned(nnunet_folders)
    api.preprocess([1])
    assert "was changed since" not in caplog.text
    file = nnunet_folders.raw / name / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "numTraining": 7}))
    api.preprocess([1])
    assert "was changed since Dataset001_A was planned" in caplog.text


def test_reference_labels_are_copied_where_newer(nnunet_folders: Any) -> None:
    name = planned(nnunet_folders)
    copies = nnunet_folders.preprocessed / name / "gt_segmentations"
    api.copy_reference_labels(name, SimpleITKIO())
    assert sorted(os.listdir(copies)) == [f"case_{i:02d}.nii.gz" for i in range(6)]
    assert (copies / "case_03.nii.gz").read_text() == "label 3"
    kept, source = copies / "case_02.nii.gz", nnunet_folders.raw / name / "labelsTr" / "case_03.nii.gz"
    before = kept.stat().st_ino
    source.write_text("a better label")
    os.utime(source, (2e9, 2e9))
    api.copy_reference_labels(name, SimpleITKIO())
    assert (copies / "case_03.nii.gz").read_text() == "a better label"
    assert kept.stat().st_ino == before


def test_reference_labels_of_cases_that_left_are_removed(nnunet_folders: Any) -> None:
    name = planned(nnunet_folders)
    copies = nnunet_folders.preprocessed / name / "gt_segmentations"
    api.copy_reference_labels(name, SimpleITKIO())
    (copies / "notes.txt").touch()
    for file in ("imagesTr/case_04_0000.nii.gz", "labelsTr/case_04.nii.gz"):
        (nnunet_folders.raw / name / file).unlink()
    api.copy_reference_labels(name, SimpleITKIO())
    assert sorted(os.listdir(copies)) == [f"case_{i:02d}.nii.gz" for i in (0, 1, 2, 3, 5)] + ["notes.txt"]


def test_the_spacing_beside_a_tiff_goes_with_it(nnunet_folders: Any) -> None:
    name = planned(nnunet_folders)
    labels = nnunet_folders.raw / name / "labelsTr"
    for i in range(6):
        os.rename(labels / f"case_{i:02d}.nii.gz", labels / f"case_{i:02d}.tif")
    (labels / "case_04.json").write_text('{"spacing": [3, 1, 1]}')
    dataset_json = nnunet_folders.raw / name / "dataset.json"
    dataset_json.write_text(dataset_json.read_text().replace(".nii.gz", ".tif"))
    for image in (nnunet_folders.raw / name / "imagesTr").iterdir():
        image.rename(str(image).replace(".nii.gz", ".tif"))
    api.copy_reference_labels(name, Tiff3DIO())
    copies = nnunet_folders.preprocessed / name / "gt_segmentations"
    assert (copies / "case_04.json").read_text() == '{"spacing": [3, 1, 1]}'
    for file in ("imagesTr/case_04_0000.tif", "labelsTr/case_04.tif"):
        (nnunet_folders.raw / name / file).unlink()
    api.copy_reference_labels(name, Tiff3DIO())
    assert sorted(os.listdir(copies)) == [f"case_{i:02d}.tif" for i in (0, 1, 2, 3, 5)]


def test_planning_passes_on_only_what_is_given(nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Planner:
        plans_identifier = "mine"

        def __init__(self, name: str, **options: Any) -> None:
            seen.append((name, options))

        def plan_experiment(self) -> None:
            seen.append("planned")

    planned(nnunet_folders)
    monkeypatch.setattr(api, "find_class", lambda kind, name: Planner)
    assert api.plan_experiments([1], "Mine") == "mine"
    api.plan_experiments(["Dataset001_A"], "Mine", 11, "P", ["1", "2", "3"], "x")
    assert seen == [
        ("Dataset001_A", {"preprocessor_name": "DefaultPreprocessor"}),
        "planned",
        (
            "Dataset001_A",
            {
                "preprocessor_name": "P",
                "overwrite_target_spacing": [1.0, 2.0, 3.0],
                "gpu_memory_target_in_gb": 11,
                "plans_name": "x",
            },
        ),
        "planned",
    ]


def test_advice_comes_after_what_stands_in_the_way(nnunet_folders: Any, caplog: pytest.LogCaptureFixture) -> None:
    name = planned(nnunet_folders)
    (nnunet_folders.preprocessed / name / "dataset_fingerprint.json").unlink()
    with caplog.at_level(logging.INFO, "nnunet_lite"), pytest.raises(PlansError, match="fingerprint"):
        api.plan_experiments([1])
    assert "residual encoder" not in caplog.text


def test_what_planning_refuses(nnunet_folders: Any) -> None:
    planned(nnunet_folders)
    with pytest.raises(ExtensionError, match="ResEncS.*the closest are: .*nnUNetPlannerResEncXL"):
        api.plan_experiments([1], "nnUNetPlannerResEncS")
    with pytest.raises(ExtensionError, match="is no planner"):
        api.plan_experiments([1], "find_patch_size")
    with pytest.raises(ExtensionError, match="NoSuchPreprocessor"):
        api.plan_experiments([1], preprocess_class_name="NoSuchPreprocessor")
    with pytest.raises(ArgumentError, match="three positive numbers"):
        api.plan_experiments([1], overwrite_target_spacing=["1", "b", "2"])
    with pytest.raises(ArgumentError, match="at least one"):
        api.plan_experiments([])


@pytest.mark.parametrize(("make", "reader"), [(make_fixture_a, "SimpleITKIO"), (make_fixture_b, "NaturalImage2DIO")])
def test_commands_from_raw_images_to_plans(make: Any, reader: str, nnunet_folders: Any) -> None:
    """Fixtures A and B with the numbers upstream planned for them."""
    name = make(nnunet_folders.raw).name
    arguments = ["-d", str(int(name[7:10])), "-npfp", "0", "--no_pp", "--no_pbar", "--verify_dataset_integrity"]
    assert planning.plan_and_preprocess_entry(arguments) == 0
    plans = PlansManager(nnunet_folders.preprocessed / name / "nnUNetPlans.json")
    assert plans.plans["image_reader_writer"] == reader
    flat = plans.get_configuration("2d")
    if reader == "SimpleITKIO":
        fullres = plans.get_configuration("3d_fullres")
        assert plans.original_median_spacing_after_transp == [3.5, 1.0, 1.0]
        assert plans.original_median_shape_after_transp == [10, 32, 30]
        assert (fullres.patch_size, fullres.batch_size, fullres.spacing) == ([10, 40, 32], 2, [3.5, 1.0, 1.0])
        assert fullres.median_image_size_in_voxels == [10.0, 35.0, 32.0]
        assert fullres.normalization_schemes == ["CTNormalization", "ZScoreNormalization"]
        assert fullres.use_mask_for_norm == [False, True]
        assert fullres.pool_op_kernel_sizes == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
        assert (flat.patch_size, flat.batch_size) == ([40, 32], 2)
    else:
        assert plans.available_configurations == ["2d"]
        assert plans.original_median_spacing_after_transp == [999.0, 1.0, 1.0]
        assert plans.original_median_shape_after_transp == [1, 68, 80]
        assert (flat.patch_size, flat.batch_size, flat.median_image_size_in_voxels) == ([80, 80], 2, [68.0, 80.0])
        expected = ["ZScoreNormalization", "ZScoreNormalization", "RGBTo01Normalization"]
        assert flat.normalization_schemes == expected


def test_commands_one_by_one_by_name(nnunet_folders: Any) -> None:
    name = make_dataset(nnunet_folders.raw, n=3).name
    assert planning.extract_fingerprint_entry(["-d", name, "-np", "0", "--no_pbar"]) == 0
    assert planning.plan_experiment_entry(["-d", name, "-overwrite_plans_name", "mine"]) == 0
    arguments = ["-d", name, "-plans_name", "mine", "-c", "3d_fullres", "-np", "0", "--no_pbar", "--max-ram", "2G"]
    assert planning.preprocess_entry(arguments) == 0
    folder = nnunet_folders.preprocessed / name
    assert sorted(p.name for p in folder.glob("[a-z]*") if p.is_dir()) == ["gt_segmentations", "mine_3d_fullres"]
    assert len(list((folder / "mine_3d_fullres").glob("*.pkl"))) == 3


@pytest.mark.parametrize(
    ("entry", "arguments", "message"),
    [
        ("plan_experiment_entry", ["-d", "7"], "7"),
        ("plan_experiment_entry", ["-d", "1", "-pl", "Nobody"], "the closest are: "),
        ("plan_experiment_entry", ["-d", "1", "-overwrite_target_spacing", "1", "1"], "three positive numbers"),
        ("plan_experiment_entry", ["-d", "1", "-overwrite_plans_name", "dataset"], "another file"),
        ("plan_experiment_entry", ["-d", "1", "-overwrite_plans_name", "a/b"], "without folder"),
        ("preprocess_entry", ["-d", "1", "-c", "5d"], "none of the configurations 5d"),
        ("preprocess_entry", ["-d", "1", "-plans_name", "nobodys"], "no plans 'nobodys'"),
    ],
)
def test_mistakes_end_in_one_line(
    entry: str, arguments: list[str], message: str, nnunet_folders: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(nnunet_folders)
    assert getattr(planning, entry)(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1 and message in error[0]


@pytest.mark.parametrize("entry", ["extract_fingerprint_entry", "plan_experiment_entry", "preprocess_entry"])
@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_unset_folders_are_named(
    entry: str, variable: str, nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(nnunet_folders)
    monkeypatch.delenv(variable)
    assert getattr(planning, entry)(["-d", "1"]) == 2
    output = capsys.readouterr()
    assert f"The environment variable {variable} is not set" in output.err
    assert output.out == ""


def test_missing_fingerprint_says_what_to_do(nnunet_folders: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = planned(nnunet_folders)
    Path(nnunet_folders.preprocessed / name / "dataset_fingerprint.json").unlink()
    assert planning.plan_experiment_entry(["-d", "1"]) == 2
    assert f"nnUNetv2_extract_fingerprint -d {name}" in capsys.readouterr().err
