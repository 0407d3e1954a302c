"""Whatever is wrong: one clear line on stderr, exit code 2, nothing half-written, nothing executed."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import complaint, files_below, half_written, run, start, succeed
from helpers.datasets import make_dataset, write_image

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
PREDICT = (
    "nnUNetv2_predict",
    "-d",
    901,
    "-c",
    "3d_fullres",
    "-device",
    "cpu",
    "-npp",
    0,
    "-nps",
    0,
    "--disable_progress_bar",
)
TRAIN = ("nnUNetv2_train", 901, "3d_fullres")
PLAN_AND_PREPROCESS = ("nnUNetv2_plan_and_preprocess", "-d", 901, "-c", "3d_fullres", "-np", 2, "-npfp", 2, "--no_pbar")
INTEGRITY = (*PLAN_AND_PREPROCESS, "--verify_dataset_integrity")
SMALL = {"n": 6, "shape": (12, 16, 16)}


@pytest.fixture
def dataset(nnunet_folders: Any) -> Path:
    """Dataset901_Tiny in a fresh nnUNet_raw: three cases of two channels."""
    return make_dataset(nnunet_folders.raw, n=3, shape=(6, 10, 8), channels=("T1", "T2"), spacing=(3, 1, 1))


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset901_Tiny planned and preprocessed, made once for this file."""
    root = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        make_dataset(root / "nnUNet_raw", **SMALL)
        succeed(*PLAN_AND_PREPROCESS)
    return root


@pytest.fixture
def planned(planned_once: Path, nnunet_folders: Any) -> Any:
    """A copy of the planned and preprocessed dataset in fresh folders."""
    for folder in nnunet_folders:
        shutil.copytree(planned_once / folder.name, folder, dirs_exist_ok=True)
    return nnunet_folders


@pytest.fixture
def model(planned: Any) -> Path:
    """A trained model's folder with an untrained network in fold 0."""
    from nnunet_lite.models.checkpoint import save_checkpoint
    from nnunet_lite.models.network import get_network_from_plans
    from nnunet_lite.plans.plans_manager import PlansManager

    preprocessed = planned.preprocessed / "Dataset901_Tiny"
    folder = planned.results / "Dataset901_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    shutil.copyfile(preprocessed / "nnUNetPlans.json", folder / "plans.json")
    shutil.copyfile(preprocessed / "dataset.json", folder / "dataset.json")
    plans = json.loads((folder / "plans.json").read_text())
    architecture = PlansManager(plans).get_configuration("3d_fullres").configuration["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"], 1, 3
    )
    save_checkpoint(
        {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0},
            "inference_allowed_mirroring_axes": None,
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )
    return folder


# the environment and the names of datasets


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("nnUNet_raw", PLAN_AND_PREPROCESS),
        ("nnUNet_raw", ("nnUNetv2_extract_fingerprint", "-d", "Dataset901_Tiny")),
        ("nnUNet_preprocessed", PLAN_AND_PREPROCESS),
        ("nnUNet_preprocessed", ("nnUNetv2_preprocess", "-d", 901)),
        ("nnUNet_preprocessed", (*TRAIN, 0, "-device", "cpu")),
        ("nnUNet_results", (*TRAIN, 0, "-device", "cpu")),
        ("nnUNet_results", (*PREDICT, "-i", ".", "-o", "out", "-f", 0)),
    ],
)
def test_unset_variable_is_named(
    planned: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, tmp_path: Path, variable: str, command: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(variable)
    before = files_below(*planned)
    assert variable in complaint(capfd, *command)
    assert files_below(*planned) == before


def test_unknown_dataset_id_lists_those_that_exist(dataset: Path, nnunet_folders: Any, capfd: Any) -> None:
    make_dataset(nnunet_folders.raw, dataset_id=17, name="Other", n=1, shape=(4, 4, 4))
    for command in (
        ("nnUNetv2_plan_and_preprocess", "-d", 999),
        ("nnUNetv2_preprocess", "-d", 999),
        ("nnUNetv2_train", 999, "3d_fullres", 0, "-device", "cpu"),
    ):
        line = complaint(capfd, *command)
        assert "999" in line
        assert "Dataset901_Tiny" in line
        assert "Dataset017_Other" in line


def test_two_datasets_of_one_id_are_both_named(dataset: Path, nnunet_folders: Any, capfd: Any) -> None:
    (nnunet_folders.preprocessed / "Dataset901_Twin").mkdir()
    line = complaint(capfd, *PLAN_AND_PREPROCESS)
    assert "Dataset901_Tiny" in line
    assert "Dataset901_Twin" in line


# the raw dataset; each spoils Dataset901_Tiny and returns the words that the message must have


def _change_json(dataset: Path, **changes: Any) -> None:
    file = dataset / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _missing_label(dataset: Path) -> list[str]:
    (dataset / "labelsTr" / "case_01.nii.gz").unlink()
    return ["case_01"]


def _missing_channel(dataset: Path) -> list[str]:
    (dataset / "imagesTr" / "case_01_0001.nii.gz").unlink()
    return ["case_01", "0001"]


def _other_ending(dataset: Path) -> list[str]:
    _change_json(dataset, file_ending=".mha")
    return [".mha", ".nii.gz"]


def _unreadable_ending(dataset: Path) -> list[str]:
    _change_json(dataset, file_ending=".docx")
    return [".docx"]


def _stray_file(dataset: Path) -> list[str]:
    shutil.copyfile(dataset / "imagesTr" / "case_00_0000.nii.gz", dataset / "imagesTr" / "readme.nii.gz")
    return ["readme.nii.gz"]


def _wrong_number(dataset: Path) -> list[str]:
    _change_json(dataset, numTraining=7)
    return ["7", "3"]


def _no_dataset_json(dataset: Path) -> list[str]:
    (dataset / "dataset.json").unlink()
    return ["dataset.json", "Dataset901_Tiny"]


def _broken_dataset_json(dataset: Path) -> list[str]:
    (dataset / "dataset.json").write_text('{"labels": ')
    return ["dataset.json"]


def _missing_key(dataset: Path) -> list[str]:
    document = json.loads((dataset / "dataset.json").read_text())
    del document["labels"]
    (dataset / "dataset.json").write_text(json.dumps(document))
    return ["labels", "dataset.json"]


def _truncated_image(dataset: Path) -> list[str]:
    file = dataset / "imagesTr" / "case_02_0000.nii.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return ["case_02_0000.nii.gz"]


def _truncated_label(dataset: Path) -> list[str]:
    file = dataset / "labelsTr" / "case_02.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    return ["case_02.nii.gz"]


def _empty_file(dataset: Path) -> list[str]:
    (dataset / "imagesTr" / "case_02_0000.nii.gz").write_bytes(b"")
    return ["case_02_0000.nii.gz"]


def _empty_dataset(dataset: Path) -> list[str]:
    for file in [*(dataset / "imagesTr").iterdir(), *(dataset / "labelsTr").iterdir()]:
        file.unlink()
    return ["imagesTr"]


def _channel_shape(dataset: Path) -> list[str]:
    file = dataset / "imagesTr" / "case_01_0001.nii.gz"
    shape = _array(file).shape
    write_image(file, np.ones((shape[0] + 1, *shape[1:]), np.float32), (3, 1, 1))
    return ["case_01", str(shape[0]), str(shape[0] + 1)]


def _label_shape(dataset: Path) -> list[str]:
    file = dataset / "labelsTr" / "case_01.nii.gz"
    shape = _array(file).shape
    write_image(file, np.ones((*shape[:2], shape[2] + 3), np.uint8), (3, 1, 1))
    return ["case_01", str(shape[2]), str(shape[2] + 3)]


def _channel_spacing(dataset: Path) -> list[str]:
    file = dataset / "imagesTr" / "case_01_0001.nii.gz"
    write_image(file, _array(file), (3, 1, 1.25))
    return ["case_01", "1.25", "1.0"]


def _label_spacing(dataset: Path) -> list[str]:
    file = dataset / "labelsTr" / "case_01.nii.gz"
    write_image(file, _array(file), (2.5, 1, 1))
    return ["case_01", "2.5", "3.0"]


def _label_value(dataset: Path) -> list[str]:
    file = dataset / "labelsTr" / "case_02.nii.gz"
    seg = _array(file)
    seg[0, 0, 0] = 7
    write_image(file, seg, (3, 1, 1))
    return ["case_02", "7"]


def _not_a_number(dataset: Path) -> list[str]:
    file = dataset / "imagesTr" / "case_02_0001.nii.gz"
    image = _array(file)
    image[1, 2, 3] = np.nan
    write_image(file, image, (3, 1, 1))
    return ["case_02", "NaN"]


def _infinity(dataset: Path) -> list[str]:
    file = dataset / "imagesTr" / "case_02_0001.nii.gz"
    image = _array(file)
    image[1, 2, 3] = np.inf
    write_image(file, image, (3, 1, 1))
    return ["case_02", "inf"]


Spoiler = Callable[[Path], list[str]]
ALWAYS_FOUND: list[Spoiler] = [
    _missing_label,
    _missing_channel,
    _other_ending,
    _unreadable_ending,
    _stray_file,
    _no_dataset_json,
    _broken_dataset_json,
    _truncated_image,
    _truncated_label,
    _empty_file,
    _empty_dataset,
    _channel_shape,
    _label_shape,
]
FOUND_BY_THE_CHECK: list[Spoiler] = [
    _missing_key,
    _wrong_number,
    _channel_spacing,
    _label_spacing,
    _label_value,
    _not_a_number,
    _infinity,
]


def _refused(dataset: Path, capfd: Any, folders: Any, spoil: Spoiler, *command: object) -> None:
    words = spoil(dataset)
    line = complaint(capfd, *command)
    for word in words:
        assert word.lower() in line.lower(), f"{word!r} is not in: {line}"
    assert half_written(folders.preprocessed) == []
    assert not list(folders.preprocessed.rglob("*.b2nd"))
    assert not list(folders.preprocessed.rglob("dataset_fingerprint.json"))


@pytest.mark.parametrize("spoil", ALWAYS_FOUND + FOUND_BY_THE_CHECK)
def test_integrity_check_names_what_is_wrong(dataset: Path, nnunet_folders: Any, capfd: Any, spoil: Spoiler) -> None:
    _refused(
        dataset,
        capfd,
        nnunet_folders,
        spoil,
        "nnUNetv2_plan_and_preprocess",
        "-d",
        901,
        "-npfp",
        0,
        "-np",
        0,
        "--verify_dataset_integrity",
        "--no_pbar",
    )


@pytest.mark.parametrize("spoil", ALWAYS_FOUND)
def test_without_the_check_it_is_no_less_clear(dataset: Path, nnunet_folders: Any, capfd: Any, spoil: Spoiler) -> None:
    _refused(dataset, capfd, nnunet_folders, spoil, "nnUNetv2_extract_fingerprint", "-d", 901, "-np", 0, "--no_pbar")


def test_errors_in_background_workers_read_the_same(dataset: Path, nnunet_folders: Any, capfd: Any) -> None:
    _refused(dataset, capfd, nnunet_folders, _not_a_number, *INTEGRITY)


def test_every_bad_case_gets_a_line(dataset: Path, capfd: Any) -> None:
    words = _label_value(dataset) + _label_spacing(dataset)
    for file in (dataset / "imagesTr").glob("case_00_0001.nii.gz"):
        file.unlink()
    assert run("nnUNetv2_extract_fingerprint", "-d", 901, "-np", 0, "--no_pbar", "--verify_dataset_integrity") == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 4  # a summary and the three cases
    assert all(any(word in line for line in lines) for word in [*words, "case_00"])


def test_case_that_turns_bad_before_preprocessing_is_named(planned: Any, capfd: Any) -> None:
    folder = planned.preprocessed / "Dataset901_Tiny" / "nnUNetPlans_3d_fullres"
    shutil.rmtree(folder)
    file = planned.raw / "Dataset901_Tiny" / "imagesTr" / "case_03_0000.nii.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    line = complaint(capfd, "nnUNetv2_preprocess", "-d", 901, "-c", "3d_fullres", "-np", 0, "--no_pbar")
    assert "case_03_0000.nii.gz" in line
    assert half_written(planned.preprocessed) == []
    assert {path.name for path in folder.glob("case_0[0-9].b2nd")} == {f"case_0{i}.b2nd" for i in (0, 1, 2, 4, 5)}


# names of configurations, folds, trainers and plans


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((901, "3d_fulres", 0), ["3d_fulres", "3d_fullres", "2d"]),
        ((901, "3d_fullres", -1), ["-1"]),
        ((901, "3d_fullres", "first"), ["first"]),
        ((901, "3d_fullres", 0, "-tr", "nnUNetTrianer"), ["nnUNetTrianer", "nnUNetTrainer"]),
        ((901, "3d_fullres", 0, "-p", "nnUNetPlan"), ["nnUNetPlan", "nnUNetPlans"]),
        ((901, "3d_fullres", 0, "-device", "gpu"), ["gpu", "cuda"]),
        ((901, "3d_fullres", 0, "--val"), ["checkpoint_final"]),
        ((901, "3d_fullres", 0, "--val", "--c"), ["--val", "--c"]),
        ((901, "3d_fullres", 0, "-pretrained_weights", "nowhere.pth"), ["nowhere.pth"]),
    ],
)
def test_training_names_what_exists(planned: Any, capfd: Any, arguments: tuple[Any, ...], words: list[str]) -> None:
    device = () if "-device" in arguments else ("-device", "cpu")
    before = files_below(planned.preprocessed, planned.results)
    line = complaint(capfd, "nnUNetv2_train", *arguments, *device)
    for word in words:
        assert word in line
    assert files_below(planned.preprocessed, planned.results) == before


def test_preprocessing_names_the_plans_that_exist(planned: Any, capfd: Any) -> None:
    line = complaint(capfd, "nnUNetv2_preprocess", "-d", 901, "-plans_name", "myPlans")
    assert "myPlans" in line
    assert "nnUNetPlans" in line


def test_preprocessing_names_the_configurations_that_exist(planned: Any, capfd: Any) -> None:
    line = complaint(capfd, "nnUNetv2_preprocess", "-d", 901, "-c", "3d_fulres")
    assert "3d_fulres" in line
    assert "3d_fullres" in line


def test_planner_and_preprocessor_names(planned: Any, capfd: Any) -> None:
    line = complaint(capfd, "nnUNetv2_plan_experiment", "-d", 901, "-pl", "ExperimentPlaner")
    assert "ExperimentPlaner" in line
    assert "ExperimentPlanner" in line
    assert "MyPreprocessor" in complaint(
        capfd, "nnUNetv2_plan_and_preprocess", "-d", 901, "-preprocessor_name", "MyPreprocessor", "--no_pbar"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-f", 3), ["3", "fold_0"]),
        (("-f", 0, "-chk", "checkpoint_best.pth"), ["checkpoint_best.pth", "checkpoint_final.pth"]),
        (("-f", 0, "-c", "2d"), ["2d", "3d_fullres"]),
        (("-f", 0, "-tr", "OtherTrainer"), ["OtherTrainer", "nnUNetTrainer"]),
        (("-f", 0, "-p", "otherPlans"), ["otherPlans", "nnUNetPlans"]),
        (("-f", 0, "-num_parts", 2, "-part_id", 2), ["2"]),
    ],
)
def test_prediction_names_what_exists(
    model: Path, planned: Any, tmp_path: Path, capfd: Any, flags: tuple[Any, ...], words: list[str]
) -> None:
    images = planned.raw / "Dataset901_Tiny" / "imagesTr"
    line = complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", *flags)
    for word in words:
        assert str(word) in line
    assert not (tmp_path / "out").exists()


def test_prediction_of_nothing_or_of_misnamed_files(model: Path, tmp_path: Path, capfd: Any) -> None:
    images = tmp_path / "images"
    assert "images" in complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0)
    images.mkdir()
    assert ".nii.gz" in complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0)
    write_image(images / "scan.nii.gz", np.ones((8, 8, 8), np.float32), (1, 1, 1))
    assert "scan.nii.gz" in complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0)
    assert not (tmp_path / "out").exists()


def test_predicted_case_that_cannot_be_read_is_named(model: Path, planned: Any, tmp_path: Path, capfd: Any) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in (0, 1):
        name = f"case_0{index}_0000.nii.gz"
        shutil.copyfile(planned.raw / "Dataset901_Tiny" / "imagesTr" / name, images / name)
    (images / "case_00_0000.nii.gz").write_bytes(b"no image")
    capfd.readouterr()
    assert run(*PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0, "--disable_tta") == 2
    at_once, at_the_end = capfd.readouterr().err.splitlines()
    assert at_once.startswith("Warning: case_00 failed: ") and at_the_end.startswith("Error: 1 of 2 cases failed: ")
    assert not (tmp_path / "out" / "case_00.nii.gz").exists()
    assert half_written(tmp_path / "out") == []


# checkpoints


class _Malicious:
    """Unpickling it would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 a broken zip"])
def test_a_file_that_is_no_checkpoint(model: Path, planned: Any, tmp_path: Path, capfd: Any, content: bytes) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(content)
    images = planned.raw / "Dataset901_Tiny" / "imagesTr"
    assert str(file) in complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["network_weights", "extra"])
def test_malicious_checkpoint_is_refused_and_never_executed(
    model: Path, planned: Any, tmp_path: Path, capfd: Any, zipped: bool, place: str
) -> None:
    import torch

    from nnunet_lite.models.checkpoint import load_checkpoint

    marker = tmp_path / "executed"
    file = model / "fold_0" / "checkpoint_final.pth"
    content = {**load_checkpoint(file), place: _Malicious(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    images = planned.raw / "Dataset901_Tiny" / "imagesTr"
    lines = [
        complaint(capfd, *PREDICT, "-i", images, "-o", tmp_path / "out", "-f", 0),
        complaint(capfd, *TRAIN, 1, "-device", "cpu", "-pretrained_weights", file),
    ]
    assert all(str(file) in line for line in lines)
    assert not marker.exists()


def test_malicious_properties_are_refused_and_never_executed(planned: Any, tmp_path: Path) -> None:
    import pickle

    from nnunet_lite.exceptions import nnUNetError
    from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class

    folder = planned.preprocessed / "Dataset901_Tiny" / "nnUNetPlans_3d_fullres"
    (folder / "case_00.pkl").write_bytes(pickle.dumps({"spacing": _Malicious(tmp_path / "executed")}))
    with pytest.raises(nnUNetError, match="case_00.pkl"):
        infer_dataset_class(str(folder))(str(folder)).load_case("case_00")
    assert not (tmp_path / "executed").exists()


# full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount memory disks of a few KiB (needs the right to mount)."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        folder = tmp_path / f"small_disk_{len(mounted)}"
        folder.mkdir()
        if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={kib}k".encode()):
            pytest.skip("mounting a small disk is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        libc.umount2(bytes(folder), 2)


def test_full_disk_while_preprocessing(
    planned: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, small_disk: Callable[[int], Path]
) -> None:
    source = planned.preprocessed / "Dataset901_Tiny"
    make_dataset(planned.raw, dataset_id=902, name="Big", n=6, shape=(40, 48, 48), seed=3)
    disk = small_disk(1600)
    monkeypatch.setenv("nnUNet_preprocessed", str(disk))
    target = disk / "Dataset902_Big"
    target.mkdir()
    for name in ("nnUNetPlans.json", "dataset_fingerprint.json", "dataset.json"):
        text = (source / name).read_text().replace("Dataset901_Tiny", "Dataset902_Big")
        (target / name).write_text(text)
    assert run("nnUNetv2_preprocess", "-d", 902, "-c", "3d_fullres", "-np", 0, "--no_pbar") == 2
    error = capfd.readouterr().err
    assert "No space left" in error
    assert "Traceback" not in error
    assert half_written(disk) == []


def test_full_disk_while_checkpointing(
    planned: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(3 * 1024)
    monkeypatch.setenv("nnUNet_results", str(disk))
    monkeypatch.setenv("nnUNet_extTrainer", str(HELPERS / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    line = complaint(capfd, *TRAIN, 0, "-tr", "TinyTrainer", "-device", "cpu")
    assert "No space left" in line
    assert not list(disk.rglob("*.pth"))
    assert half_written(disk) == []


def test_full_disk_while_predicting_with_probabilities(
    planned: Any, model: Path, tmp_path: Path, capfd: Any, small_disk: Callable[[int], Path]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a_0000.nii.gz", np.random.default_rng(0).random((12, 16, 16), np.float32), (20, 1, 1))
    disk = small_disk(48)
    assert run(*PREDICT, "-i", images, "-o", disk, "-f", 0, "-step_size", 1, "--save_probabilities") == 2
    error = capfd.readouterr().err
    assert "No space left" in error
    assert "Traceback" not in error
    assert half_written(disk) == []
    assert not list(disk.glob("a*"))


# killed processes


@pytest.mark.parametrize("deaths", [1, 2])
def test_killed_preprocessing_worker(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, deaths: int
) -> None:
    """Once: the case is tried again and all is well. Twice: it is named, and the others are done."""
    counter = tmp_path / "deaths"
    counter.write_text(str(deaths))
    monkeypatch.setenv("DEATHS", str(counter))
    monkeypatch.setenv("nnUNet_extTrainer", str(HELPERS / "preprocessors"))
    preprocessed = planned.preprocessed / "Dataset901_Tiny"
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["preprocessor_name"] = "DyingPreprocessor"
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    shutil.rmtree(preprocessed / "nnUNetPlans_3d_fullres")
    command = ("nnUNetv2_preprocess", "-d", 901, "-c", "3d_fullres", "-np", 2, "--no_pbar")
    if deaths == 1:
        succeed(*command)
    else:
        line = complaint(capfd, *command)
        assert "case_02" in line
        assert "SIGKILL" in line
    assert counter.read_text() == "0"
    assert half_written(preprocessed) == []
    done = {path.stem for path in (preprocessed / "nnUNetPlans_3d_fullres").glob("case_0[0-9].b2nd")}
    assert done == {f"case_0{i}" for i in range(6)} - ({"case_02"} if deaths == 2 else set())


def _kill_training(fold_folder: Path, moments: random.Random, continued: bool) -> None:
    """Start a training that saves all the time, kill it at a random moment, then load every checkpoint there is."""
    from nnunet_lite.models.checkpoint import load_checkpoint

    newest = max((file.stat().st_mtime_ns for file in fold_folder.glob("checkpoint_*.pth")), default=0)
    process = start(*TRAIN, 0, "-tr", "EverSavingTrainer", "-device", "cpu", *(["--c"] if continued else []))
    deadline = time.monotonic() + 120
    while all(file.stat().st_mtime_ns <= newest for file in fold_folder.glob("checkpoint_*.pth")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)
    time.sleep(moments.uniform(0, 0.5))
    process.kill()
    process.communicate()
    checkpoints = list(fold_folder.glob("checkpoint_*.pth"))
    assert checkpoints
    for file in checkpoints:
        assert load_checkpoint(file)["network_weights"]


def _kill_repeatedly(folders: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(HELPERS / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    model = folders.results / "Dataset901_Tiny" / "EverSavingTrainer__nnUNetPlans__3d_fullres"
    moments = random.Random(0)
    for attempt in range(times):
        _kill_training(model / "fold_0", moments, continued=attempt > 0)


def test_killed_training_leaves_checkpoints_that_load(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _kill_repeatedly(planned, monkeypatch, 2)


@pytest.mark.slow
def test_training_killed_fifty_times(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _kill_repeatedly(planned, monkeypatch, 50)
