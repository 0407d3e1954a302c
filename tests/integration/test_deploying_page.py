"""The commands and scripts of the page on deploying, run in their order with the minimum of a model."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import succeed
from helpers.models import write_model
from helpers.pages import blocks

PAGE = (Path(__file__).parents[2] / "documentation" / "deploying.md").read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model in `results`, images in `incoming` and, one of them broken, in `queue`; nothing in the
    environment."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.delenv(name, raising=False)
    write_model(tmp_path / "results", folds=(0, 1))
    random = np.random.default_rng(0)
    for folder, names in (("incoming", ("a", "b")), ("queue/one", ("a",)), ("queue/two", ("b",))):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            image = sitk.GetImageFromArray(random.normal(size=(9, 10, 8)).astype(np.float32))
            sitk.WriteImage(image, str(tmp_path / folder / f"{name}_0000.nii.gz"))
    (tmp_path / "queue" / "two" / "b_0000.nii.gz").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnunet_lite.utilities.device.set_num_threads", lambda _: None)
    return tmp_path


def _run_line(line: str, scripts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command, *words = shlex.split(line)
    if command == "mkdir":
        Path(words[-1]).mkdir(parents=True)
    elif command == "cp":
        for file in words[:-1]:
            shutil.copy(file, words[-1])
    elif command == "python":
        monkeypatch.setattr(sys, "argv", words)
        exec(
            compile(next(script for script in scripts if "sys.argv" in script), words[0], "exec"),
            {"__name__": "__main__"},
        )
    else:
        succeed(command, *words)


def test_its_commands_and_scripts_do_what_it_says(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scripts = [block.text for block in blocks("deploying.md", "python")]
    lines = [line for block in blocks("deploying.md", "bash") for line in block.text.splitlines()]
    assert len(lines) == 6 and len(scripts) == 2
    for line in lines:
        _run_line(line, scripts, monkeypatch)
    exec(compile(scripts[1], "arrays", "exec"), {"__name__": "arrays"})
    assert sorted(str(file.relative_to("model")) for file in Path("model").rglob("*.*")) == [
        "dataset.json", "fold_0/checkpoint_final.pth", "plans.json",
    ]  # fmt: skip
    assert {"a.nii.gz", "b.nii.gz"} <= {file.name for file in Path("outgoing").iterdir()}
    assert (place / "done" / "one" / "a.nii.gz").is_file()
    assert _reasons(place) == ["two"]
    assert [path.name for path in (place / "done").iterdir()] == ["one"]
    assert not list((place / "queue").iterdir()), "no patient's images stay"
    first = (place / "done" / "one" / "a.nii.gz").stat().st_mtime_ns
    for _ in range(2):  # names that come again
        capfd.readouterr()
        for name, file in (("one", "a"), ("two", "b")):
            (place / "queue" / name).mkdir()
            content = (place / "incoming" / "a_0000.nii.gz").read_bytes() if name == "one" else b"no image"
            (place / "queue" / name / f"{file}_0000.nii.gz").write_bytes(content)
        _run_line(lines[-1], scripts, monkeypatch)
        said = capfd.readouterr().out.splitlines()
        assert "one done" in said and any(line.startswith("two failed: ") for line in said)
    assert (place / "done" / "one" / "a.nii.gz").stat().st_mtime_ns > first
    assert _reasons(place) == ["two"] * 3 and not list((place / "queue").iterdir())
    assert [path.name for path in (place / "done").iterdir()] == ["one"]


def _reasons(place: Path) -> list[str]:
    """Names of the failed cases, each with its images and the reason."""
    folders = list((place / "failed").iterdir())
    for folder in folders:
        assert "b_0000.nii.gz cannot be read" in (folder / "error.txt").read_text()
        assert (folder / "b_0000.nii.gz").is_file()
    return [folder.name.split(".")[0] for folder in folders]


def test_the_exit_codes_are_those_of_the_commands() -> None:
    from nnunet_lite.cli.command import command

    codes = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    assert codes == ["0", "2", "130, 143", "137"]
    assert "0 done; 2 a mistake or failed cases, explained on stderr; 130 Ctrl-C; 143 SIGTERM" in (
        command.__doc__ or ""
    )
