"""Plans for fine-tuning nnssl checkpoints (spec 01, 8.8 and 8.9), the commands included."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.commands import complaint, succeed
from helpers.datasets import make_dataset

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.experiment_planning import pretrained_plans
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.utilities.files import load_pickle

LIKE, DYNAMIC = "nnUNetv2_preprocess_like_nnssl", "nnUNetv2_plan_like_dynamic"
ADAPTATION = {
    "pretrain_plan": {"configurations": {"onemmiso": {"spacing": [2.0, 1.5, 1.5], "patch_size": [160, 160, 160]}}},
    "architecture_plans": {
        "arch_class_name": "ResEncL",
        "arch_kwargs": {"n_stages": 6},
        "arch_kwargs_requiring_import": ["conv_op"],
    },
    "key_to_encoder": "encoder.stages",
    "key_to_stem": "encoder.stem",
    "keys_to_in_proj": ["encoder.stem.convs.0.conv"],
    "key_to_lpe": None,
    "pretrain_num_input_channels": 1,
    "recommended_downstream_patchsize": [32, 32, 32],
}


@pytest.fixture
def checkpoint(tmp_path: Path, nnunet_folders: Any) -> Path:
    """A planned dataset 31 of two channels, and a checkpoint."""
    make_dataset(
        nnunet_folders.raw, 31, "Tune", n=2, shape=(8, 20, 18), spacing=(3, 1, 1), channels=("CT", "MRI"), vary=0
    )
    succeed("nnUNetv2_plan_and_preprocess", "-d", "31", "-npfp", "0", "--no_pp", "--no_pbar")
    return save(tmp_path / "pretrained.pth", ADAPTATION)


def save(path: Path, plan: Any, **more: Any) -> Path:
    torch.save({"network_weights": {}, "nnssl_adaptation_plan": plan, "citations": ["a paper"], **more}, path)
    return path


def folder(folders: Any) -> Path:
    return folders.preprocessed / "Dataset031_Tune"


def like(checkpoint: Path, *more: object) -> None:
    succeed(LIKE, "-d", "31", "-n", "ssl", "-pc", checkpoint, "-np", "0", *more)


@pytest.mark.parametrize(
    ("arguments", "spacing", "text"),
    [
        ((), [3.0, 1.0, 1.0], "3.00_1.00_1.00"),
        (("-am", "fixed", "-os", "2", "1", "0.5"), [2.0, 1.0, 0.5], "2.00_1.00_0.50"),
        (("--adaptation_mode", "like_pretrained"), [2.0, 1.5, 1.5], "2.00_1.50_1.50"),
        (("-am", "no_resample"), [None, None, None], "None_None_None"),
    ],
)
def test_spacing_by_adaptation_mode(
    arguments: tuple[str, ...], spacing: list[Any], text: str, checkpoint: Path, nnunet_folders: Any
) -> None:
    like(checkpoint, *arguments)
    identifier = f"Spacing__{text}___Norm__Z_Z"
    file = folder(nnunet_folders) / f"ptPlans__ssl____{identifier}.json"
    plans = json.loads(file.read_text())
    assert list(plans) == sorted(plans)
    assert plans["plans_name"] == file.stem
    assert list(plans["configurations"]) == ["3d_fullres"]
    fullres = plans["configurations"]["3d_fullres"]
    assert fullres["spacing"] == spacing
    assert (fullres["data_identifier"], fullres["batch_size"]) == (identifier, 2)
    assert fullres["patch_size"] == [32, 32, 32]
    assert fullres["normalization_schemes"] == ["ZScoreNormalization"] * 2
    assert fullres["architecture"] == {
        "network_class_name": "ResEncL",
        "arch_kwargs": {"n_stages": 6},
        "_kw_requires_import": ["conv_op"],
    }
    assert plans["pretrain_info"] == {
        "checkpoint_path": str(checkpoint),
        "checkpoint_name": "ssl",
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv"],
        "key_to_lpe": None,
        "pt_num_in_channels": 1,
        "pt_used_patchsize": [160, 160, 160],
        "pt_recommended_downstream_patchsize": [32, 32, 32],
        "citations": ["a paper"],
    }
    data, *_ = nnUNetDatasetBlosc2(str(folder(nnunet_folders) / identifier)).load_case("case_00")
    assert data.shape == (
        2,
        *(round(n * (own / (s or own))) for n, own, s in zip((8, 20, 18), (3, 1, 1), spacing, strict=True)),
    )
    assert len(list((folder(nnunet_folders) / "gt_segmentations").iterdir())) == 2


def test_a_checkpoint_without_spacing_leaves_the_planned_one(
    checkpoint: Path, nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained_plans, "preprocess", lambda *_: None)
    plan = {**ADAPTATION, "pretrain_plan": {"configurations": [{"spacing": None, "patch_size": [64] * 3}]}}
    name = pretrained_plans.preprocess_like_nnssl(31, "x", str(save(checkpoint, plan)), "like_pretrained")
    assert name == "ptPlans__x____Spacing__3.00_1.00_1.00___Norm__Z_Z"


def test_masks_follow_the_new_normalization(
    checkpoint: Path, nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream keeps the mask setting of the schemes it replaces (CT: never)."""
    monkeypatch.setattr(pretrained_plans, "preprocess", lambda *_: None)
    file = folder(nnunet_folders) / "dataset_fingerprint.json"
    for size, expected in ((0.5, [True, True]), (0.8, [False, False])):
        fingerprint = json.loads(file.read_text())
        file.write_text(json.dumps({**fingerprint, "median_relative_size_after_cropping": size}))
        name = pretrained_plans.preprocess_like_nnssl(31, "x", str(checkpoint))
        plans = json.loads((folder(nnunet_folders) / f"{name}.json").read_text())
        assert plans["configurations"]["3d_fullres"]["use_mask_for_norm"] == expected


def test_finished_cases_are_kept_and_unfinished_folders_completed(checkpoint: Path, nnunet_folders: Any) -> None:
    like(checkpoint)
    cases = folder(nnunet_folders) / "Spacing__3.00_1.00_1.00___Norm__Z_Z"
    before = {file.name: file.stat().st_mtime_ns for file in cases.iterdir()}
    (cases / "case_01.pkl").unlink()  # upstream takes any folder for a complete one
    like(checkpoint)
    after = {file.name: file.stat().st_mtime_ns for file in cases.iterdir()}
    assert {name for name in before if before[name] == after[name]} == {n for n in before if n.startswith("case_00")}
    like(checkpoint, "--overwrite_pp")
    again = {file.name: file.stat().st_mtime_ns for file in cases.iterdir()}
    assert all(again[name] > after[name] for name in again)


def test_dynamic_plans_keep_what_was_planned(
    checkpoint: Path, nnunet_folders: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    succeed(DYNAMIC, "-d", "31", "-n", "ssl", "-pc", checkpoint, "-np", "0")
    own = json.loads((folder(nnunet_folders) / "nnUNetPlans.json").read_text())
    plans = json.loads((folder(nnunet_folders) / "ptPlans_dynamic__ssl.json").read_text())
    assert plans["configurations"] == {"3d_fullres": own["configurations"]["3d_fullres"]}
    assert plans["pretrain_info"]["pt_architecture_kwargs"] == {"n_stages": 6}
    assert (folder(nnunet_folders) / "nnUNetPlans_3d_fullres" / "case_00.b2nd").is_file()
    assert "DynamicPretrainedTrainer -p ptPlans_dynamic__ssl" in capfd.readouterr().out


def test_what_is_refused(checkpoint: Path, nnunet_folders: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object, command: str = LIKE) -> str:
        return complaint(capfd, command, "-d", "31", "-n", "x", "-pc", *arguments)

    assert "-os with three positive numbers" in refused(checkpoint, "-am", "fixed")
    assert "-os with three positive numbers" in refused(checkpoint, "-am", "fixed", "-os", "1", "1")
    assert "is not a finite number above zero" in refused(checkpoint, "-am", "fixed", "-os", "1", "-1", "1")
    assert "There is no checkpoint" in refused(checkpoint.with_name("none.pth"))
    text = checkpoint.with_name("text.pth")
    text.write_text("no checkpoint")
    assert "give a .pth file" in refused(text)
    assert "'key_to_lpe'" in refused(save(checkpoint, {k: v for k, v in ADAPTATION.items() if k != "key_to_lpe"}))
    assert "no pretrain_plan.configurations" in refused(save(checkpoint, {**ADAPTATION, "pretrain_plan": {}}))
    assert "no pretrain_plan.configurations" in refused(
        save(checkpoint, {**ADAPTATION, "pretrain_plan": {"configurations": ["onemmiso"]}})
    )
    assert "'architecture_plans' of its adaptation plan is 'ResEncL'" in refused(
        save(checkpoint, {**ADAPTATION, "architecture_plans": "ResEncL"})
    )
    assert "recommends is [32, '32', 32], expected three positive whole numbers" in refused(
        save(checkpoint, {**ADAPTATION, "recommended_downstream_patchsize": [32, "32", 32]})
    )
    strange = {"configurations": {"x": {"spacing": "1 mm", "patch_size": [8] * 3}}}
    assert "the spacing of its pretraining is '1 mm', expected three positive numbers" in refused(
        save(checkpoint, {**ADAPTATION, "pretrain_plan": strange}), "-am", "like_pretrained"
    )
    assert "no 'nnssl_adaptation_plan'" in refused(save(checkpoint, None), command=DYNAMIC)
    torch.save({"nnssl_adaptation_plan": Path("x")}, checkpoint)
    assert "asks for pathlib.PosixPath" in refused(checkpoint)
    assert "no plans 'nobodys'" in refused(checkpoint, "-pl", "nobodys", command=DYNAMIC)
    (folder(nnunet_folders) / "nnUNetPlans.json").unlink()
    assert "nnUNetResEncUNetXLPlans (it has: none)" in refused(checkpoint)


class Hub(SimpleNamespace):
    """Stands in for huggingface_hub."""

    def __init__(self, source: Path, files: list[str]) -> None:
        self.source, self.files, self.fetched = source, files, []

    def list_repo_files(self, repository: str) -> list[str]:
        assert repository == "AnonRes/ResEncL-SSL"
        return self.files

    def hf_hub_download(self, repo_id: str, filename: str, local_dir: str) -> None:
        self.fetched.append(filename)
        Path(local_dir).mkdir(exist_ok=True)
        (Path(local_dir) / filename).write_bytes(self.source.read_bytes())


ADDRESS = "https://huggingface.co/AnonRes/ResEncL-SSL"


def test_checkpoints_from_hugging_face(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnssl_pretrained_models", str(tmp_path))
    hub = Hub(checkpoint, ["adaptation_plan.json", "checkpoint_final.pth", "config.json"])
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = pretrained_plans.load_pretrained(ADDRESS)
    assert found.path == tmp_path / "AnonRes_ResEncL-SSL" / "checkpoint_final.pth"
    assert hub.fetched == ["config.json", "checkpoint_final.pth"]
    pretrained_plans.load_pretrained(f"{ADDRESS}/")
    assert len(hub.fetched) == 2, "what is here is not fetched again"
    found.path.unlink()
    hub.files = ["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"no adaptation_plan.json.*model.safetensors"):
        pretrained_plans.load_pretrained(ADDRESS)


def test_hugging_face_is_optional(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-d", "31", "-n", "x", "-pc"]
    monkeypatch.delenv("nnssl_pretrained_models", raising=False)
    assert "nnssl_pretrained_models is not set" in complaint(capfd, LIKE, *arguments, ADDRESS)
    monkeypatch.setenv("nnssl_pretrained_models", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in complaint(capfd, LIKE, *arguments, ADDRESS)
    assert "expected a file or https" in complaint(capfd, LIKE, *arguments, "http://example.org/x/y")


def test_properties_of_cases_kept_as_they_are(checkpoint: Path, nnunet_folders: Any) -> None:
    like(checkpoint, "-am", "no_resample")
    cases = folder(nnunet_folders) / "Spacing__None_None_None___Norm__Z_Z"
    properties = load_pickle(cases / "case_00.pkl")
    assert tuple(properties["shape_after_cropping_and_before_resampling"]) == (8, 20, 18)
