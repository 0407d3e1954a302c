"""What the README and the documentation say is so: the map, the links, the commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "documentation").glob("*.md")),
    ROOT / ".github" / "CONTRIBUTING.md",
]


def _map_of_readme() -> dict[str, str]:
    """Path -> description, from the indented tree after the map marker."""
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- map -->")[1].split("```")[1]
    entries: dict[str, str] = {}
    folders: list[str] = []
    for line in tree.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, description = line.strip().partition(" ")
        folders[depth:] = [name]
        entries["".join(folders)] = description.strip()
    return entries


def _tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def test_map_has_a_line_for_every_file_of_the_package_and_no_other():
    modules = {file for file in _tracked() if file.startswith("nnunet_lite/") and file.endswith(".py")}
    modules -= {file for file in modules if file.endswith("/__init__.py") and file != "nnunet_lite/__init__.py"}
    assert {name for name in _map_of_readme() if name.endswith(".py")} == modules


def test_map_has_a_line_for_every_folder():
    folders = {
        str(parent) + "/"
        for file in _tracked()
        if file.startswith("nnunet_lite/")
        for parent in Path(file).parents
        if str(parent) != "."
    }
    others = {file.split("/")[0] + "/" for file in _tracked() if "/" in file}
    assert {name for name in _map_of_readme() if name.endswith("/")} == folders | others


def test_map_describes_every_file():
    assert [name for name, description in _map_of_readme().items() if not description] == []


def test_readme_lists_every_page():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Documentation")[1].split("\n## ")[0]
    listed = set(re.findall(r"\]\(documentation/([\w-]+\.md)\)", section))
    assert listed == {page.name for page in (ROOT / "documentation").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_command_is_documented_and_every_documented_command_exists():
    scripts = {point.name for point in entry_points(group="console_scripts") if point.value.startswith("nnunet_lite.")}
    reference = (ROOT / "documentation" / "reference.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(nnUNetv2_\w+)`\]", reference, re.MULTILINE)) == scripts
    for page in PAGES:
        assert set(re.findall(r"nnUNetv2_\w+\b", page.read_text(encoding="utf-8"))) <= scripts, page.name
