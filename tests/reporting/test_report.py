"""The whole report: its parts at every stage of a dataset, its size, and that nothing in it can harm."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Folders
from helpers.crossvalidations import NAME, make_references
from helpers.reports import EVIL, make_reported_dataset, report_documents

from nnunet_lite.exceptions import ArgumentError, StorageError
from nnunet_lite.model_selection.find_best_configuration import find_best_configuration
from nnunet_lite.reporting import report as module
from nnunet_lite.reporting.report import Choice, default_output, write_report

PARTS = ["overview", "fingerprint", "plans", "training", "results", "cases", "decisions", "missing"]


class Checked(HTMLParser):
    """Collects elements; complains of tags that do not match and of anything that is loaded from outside."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "input", "br", "hr", "img"):
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in ("src", "href", "action", "data"):
                assert (value or "").startswith(("#", "data:")), (tag, value)
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(file: Path) -> Checked:
    page = Checked()
    page.feed(file.read_text(encoding="utf-8"))
    assert page.open == [] and page.scripts == 1 and len(set(page.ids)) == len(page.ids)
    return page


def test_everything(nnunet_folders: Folders) -> None:
    make_reported_dataset(nnunet_folders, ("3d_fullres", "2d"))
    models = [{"plans": "nnUNetPlans", "configuration": c, "trainer": "nnUNetTrainer"} for c in ("2d", "3d_fullres")]
    find_best_configuration(NAME, models, folds=(0, 1), num_processes=0)
    output = write_report(NAME, num_processes=0)
    assert output == nnunet_folders.results / NAME / "report.html"
    page = read(output)
    assert [part for part in page.ids if not part.startswith("case-")] == PARTS
    assert len([part for part in page.ids if part.startswith("case-")]) == 3
    text = " ".join(page.texts)
    for words in (EVIL, f"CT{EVIL}", "was chosen", "3 × 12 × 14", "CTNormalization", "3 cases with the worst Dice",
                  "Cross-validation of all candidates", "Nothing is missing", "fold 0, training"):  # fmt: skip
        assert words in text, words
    html = output.read_text(encoding="utf-8")
    assert EVIL not in html and "default-src &#x27;none&#x27;; img-src data:;" in html
    assert html.count("data:image/png") == 9 and 'class="prediction"' in html
    assert not list(nnunet_folders.results.rglob("*.tmp*"))


def test_an_ensembles_own_cases_are_shown(nnunet_folders: Folders) -> None:
    make_reported_dataset(nnunet_folders, ("3d_fullres", "2d"))
    models = [{"plans": "nnUNetPlans", "configuration": c, "trainer": "nnUNetTrainer"} for c in ("2d", "3d_fullres")]
    find_best_configuration(NAME, models, folds=(0, 1), num_processes=0)
    file = nnunet_folders.results / NAME / "inference_information.json"
    content = json.loads(file.read_text())
    name = next(name for name in content["all_results"] if name.startswith("ensemble"))
    chosen = [{"trainer": m["trainer"], "configuration": m["configuration"], "plans_identifier": m["plans"]}
              for m in content["considered_models"]]  # fmt: skip
    content["best_model_or_ensemble"]["selected_model_or_models"] = chosen
    file.write_text(json.dumps(content))
    text = " ".join(read(write_report(NAME, num_processes=0)).texts)
    assert f"Of {name}, before postprocessing" in text and "Not drawn" not in text


def test_before_anything_is_trained(nnunet_folders: Folders) -> None:
    content = report_documents()
    make_references(nnunet_folders.raw, nnunet_folders.preprocessed, content)
    output = write_report(NAME)
    assert output == nnunet_folders.preprocessed / NAME / "report.html"
    text = " ".join(read(output).texts)
    for words in ("There is no fingerprint yet", "No model has been trained", "No fold has been validated"):
        assert words in text
    assert "Nothing is missing." not in text
    images = nnunet_folders.raw / NAME / "imagesTr"
    images.mkdir(exist_ok=True)
    (images / "case_00_0000.nii.gz").touch()
    (nnunet_folders.raw / NAME / "dataset.json").write_text(json.dumps(content["dataset.json"]))
    text = " ".join(read(write_report(NAME)).texts)
    assert "says what it needs" in text and "nnUNetv2_plan_and_preprocess -d 41" in text


def test_with_nothing_but_results(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_reported_dataset(nnunet_folders)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name)
    text = " ".join(read(write_report(NAME, tmp_path / "new" / "r.html")).texts)
    assert "its reference is neither in nnUNet_raw nor in nnUNet_preprocessed" in text and "PlainConvUNet" in text


def test_cases_without_their_image_or_prediction(nnunet_folders: Folders) -> None:
    [model] = make_reported_dataset(nnunet_folders)
    (model / "fold_0" / "validation" / "a.nii.gz").unlink()
    (nnunet_folders.raw / NAME / "imagesTr" / "b_0000.nii.gz").unlink()
    (model / "fold_1" / "validation" / "c.nii.gz").write_bytes(b"damaged")
    output = write_report(NAME, num_processes=0)
    text = " ".join(read(output).texts)
    assert "is not there any more" in text and text.count("Not drawn") == 2
    assert "outlines alone" in text and output.read_text().count("data:image/png") == 0


def test_a_choice_of_models_and_folds(nnunet_folders: Folders, tmp_path: Path) -> None:
    make_reported_dataset(nnunet_folders, ("3d_fullres", "2d"))
    output = write_report(NAME, tmp_path / "r.html", Choice(configurations=["2d"], folds=[1]), num_processes=0)
    text = " ".join(read(output).texts)
    assert "nnUNetTrainer__nnUNetPlans__2d" in text and "nnUNetPlans__3d_fullres" not in text
    assert "1 cases, mean foreground" in text or "1 case, mean foreground" in text
    with pytest.raises(ArgumentError, match=r"there are: nnUNetTrainer__nnUNetPlans__2d, nnUNetTrainer__"):
        write_report(NAME, tmp_path / "s.html", Choice(trainers=["nnUNetTrainerX"]))
    assert not (tmp_path / "s.html").exists()


def test_nothing_is_left_of_a_report_that_stops(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_reported_dataset(nnunet_folders)
    (tmp_path / "r.html").write_text("earlier")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "make_gallery", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(NAME, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "earlier" and not list(tmp_path.glob("*.tmp*"))
    with pytest.raises(StorageError, match="is a folder"):
        write_report(NAME, tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [("dataset_fingerprint.json", "{}"), ("dataset_fingerprint.json", "[1"),
     ("nnUNetPlans.json", '{"configurations": 3}'),
     ("nnUNetPlans.json", '{"configurations": {"2d": {"inherits_from": "2d"}}}'), ("dataset.json", "[]"),
     ("dataset.json", '{"labels": 3, "channel_names": 7, "file_ending": 1}'), ("splits_final.json", "x")],
)  # fmt: skip
def test_damaged_documents_are_said_and_the_rest_is_shown(nnunet_folders: Folders, file: str, content: str) -> None:
    make_reported_dataset(nnunet_folders)
    (nnunet_folders.preprocessed / NAME / file).write_text(content)
    page = read(write_report(NAME, num_processes=0))
    assert {*PARTS} < {*page.ids} and "case-3" in page.ids


def test_a_huge_dataset_stays_small(nnunet_folders: Folders) -> None:
    """500 cases of 118 classes, five folds of a thousand epochs."""
    [model] = make_reported_dataset(nnunet_folders)
    rng = np.random.default_rng(0)
    rows = [{"epoch": e, "train_losses": rng.random(), "val_losses": rng.random(), "ema_fg_dice": rng.random()}
            for e in range(1000)]  # fmt: skip
    for fold in range(5):
        dice = np.round(rng.random((100, 118)), 6).tolist()
        cases = [
            {
                "prediction_file": f"case_{fold}_{k}.nii.gz",
                "metrics": {str(c + 1): {"Dice": v} for c, v in enumerate(row)},
            }
            for k, row in enumerate(dice)
        ]
        validation = model / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        summary = {"metric_per_case": cases, "mean": {}, "foreground_mean": {"Dice": 0.5}}
        (validation / "summary.json").write_text(json.dumps(summary))
        (validation.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = write_report(NAME, num_processes=0)
    html = output.read_text(encoding="utf-8")
    assert output.stat().st_size < 2**19
    assert "of class" in html and html.count("<tr>") < 700
    read(output)


def test_where_it_goes(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_output(NAME) == Path(f"report_{NAME}.html")
    (nnunet_folders.preprocessed / NAME).mkdir()
    assert default_output(NAME).parent == nnunet_folders.preprocessed / NAME
    (nnunet_folders.results / NAME).mkdir()
    assert default_output(NAME).parent == nnunet_folders.results / NAME


def test_scores_agree_with_the_evaluation(nnunet_folders: Folders) -> None:
    [model] = make_reported_dataset(nnunet_folders)
    html = write_report(NAME, num_processes=0).read_text(encoding="utf-8")
    for fold in (0, 1):
        summary = json.loads((model / f"fold_{fold}" / "validation" / "summary.json").read_text())
        for case in summary["metric_per_case"]:
            dice = [values["Dice"] for values in case["metrics"].values()]
            assert not any(map(math.isnan, dice))
            name = Path(case["prediction_file"]).name.removesuffix(".nii.gz")
            cells = [f"{value:.4f}" for value in (sum(dice) / len(dice), *dice)]
            pattern = rf'<th scope="row">{name}</th><td>{fold}</td>' + "".join(f"<td>{cell}</td>" for cell in cells)
            assert re.search(pattern, html)


def test_a_name_that_is_too_long_and_a_damaged_epoch(nnunet_folders: Folders) -> None:
    [model] = make_reported_dataset(nnunet_folders)
    file = model / "fold_0" / "validation" / "summary.json"
    content = json.loads(file.read_text())
    content["metric_per_case"][0]["prediction_file"] = f"{'x' * 300}.nii.gz"
    file.write_text(json.dumps(content))
    with (model / "fold_0" / "metrics.jsonl").open("a") as lines:
        lines.write(f'{{"epoch": 1{"0" * 400}}}\n')
    output = write_report(NAME, num_processes=0)
    text = " ".join(read(output).texts)
    assert "its reference is neither" not in text and "File name too long" in text
    assert text.count("Not drawn") == 1 and "This part cannot be made" not in text
    assert output.read_text().count("data:image/png") > 0  # the other cases


@pytest.mark.parametrize(
    ("function", "part", "others"),
    [("fingerprint_section", "fingerprint", 0), ("training_section", "training", 0), ("make_gallery", "cases", 0),
     ("missing_section", "missing", 0), ("results_section", "results", 0), ("read_results", "results", 1)],
)  # fmt: skip
def test_a_part_that_fails_leaves_the_others_alone(
    nnunet_folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    function: str,
    part: str,
    others: int,
) -> None:
    make_reported_dataset(nnunet_folders)

    def fail(*_: object) -> None:
        raise OverflowError("int too large to <convert>")

    monkeypatch.setattr(module, function, fail)
    output = write_report(NAME, num_processes=0)
    page = read(output)
    assert [name for name in page.ids if not name.startswith("case-")] == PARTS
    text = "".join(page.texts)
    assert text.count("This part cannot be made: OverflowError: int too large to <convert>") == 1 + others
    html = output.read_text(encoding="utf-8")
    assert f'id="{part}"' in html and "cannot be made" in html.split(f'id="{part}"')[1].split("<section")[0]
    said = [record for record in caplog.records if record.exc_info]
    assert {record.levelname for record in said} <= {"DEBUG"}, "tracebacks are for those who look for them"


def test_documents_are_those_of_the_model_whose_cases_are_shown(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    [model] = make_reported_dataset(nnunet_folders)
    longer = model.with_name(f"My{model.name}")
    shutil.copytree(model, longer)
    (model / "fold_1" / "validation" / "summary.json").unlink()  # so the other has more cases
    shown = []
    monkeypatch.setattr(module, "make_gallery", lambda gallery, folder: shown.append((gallery.results.name, folder)))
    write_report(NAME, num_processes=0)
    assert shown == [(longer.name, longer)]
