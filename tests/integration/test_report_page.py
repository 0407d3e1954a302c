"""The commands of documentation/report.md are run, and what it says of them is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import Folders
from helpers.commands import complaint, succeed
from helpers.crossvalidations import NAME
from helpers.reports import make_reported_dataset

PAGE = (Path(__file__).parents[2] / "documentation" / "report.md").read_text(encoding="utf-8")


@pytest.fixture
def place(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Folders:
    """The dataset of the page, reported on from an empty working folder."""
    make_reported_dataset(nnunet_folders)
    for root in nnunet_folders:
        (root / NAME).rename(root / "Dataset004_Hippocampus")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return nnunet_folders


def test_commands_of_the_page(place: Folders, capfd: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        command, *arguments = shlex.split(line)
        succeed(command, *arguments)
    report = place.results / "Dataset004_Hippocampus" / "report.html"
    said = re.findall(r"^(\S+\.html): .* KiB, made in", capfd.readouterr().out, re.MULTILINE)
    assert said == [str(report), "fullres.html", str(report)]
    assert report.is_file() and Path("fullres.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-d", 5), "no dataset with id 5"),
        (("-d", 4, "-c", "2d"), "there are: nnUNetTrainer__nnUNetPlans__3d_fullres"),
        (("-d", 4, "-channel_idx", 1), "channel_idx is 1, but the dataset has the channels 0 to 0"),
        (("-d", 4, "-np", -1), "-1"),
        (("-d", 4, "-o", "."), "is a folder"),
        (("-d", 4, "-f", "x"), "'x'"),
        ((), "-d"),
    ],
)
def test_mistakes_are_one_line(
    place: Folders, capfd: pytest.CaptureFixture[str], arguments: tuple[object, ...], words: str
) -> None:
    assert words in complaint(capfd, "nnUNetv2_report", *arguments)
    assert not list(place.results.rglob("*.html")) and not list(Path.cwd().iterdir())
