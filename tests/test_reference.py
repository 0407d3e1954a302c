"""The tables of commands and flags of documentation/reference.md are those of the commands."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "documentation" / "make_reference.py"


@pytest.fixture
def reference() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_that_is_written(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "3")  # the page does not depend on where it is written
    page = reference.PAGE.read_text(encoding="utf-8")
    assert reference.renewed(page) == page, "run: python documentation/make_reference.py"


def test_every_command_and_every_flag_is_on_it(reference: ModuleType) -> None:
    page = reference.flags_section()
    assert len(reference.scripts()) >= 27
    for name, entry in reference.scripts().items():
        table = page.split(f"### {name}\n")[1].split("\n###")[0]
        for action in reference.parser_of(entry)._actions:
            for flag in action.option_strings or [action.dest]:
                assert (f"`{flag}`" in table) == (flag not in ("-h", "--help"))


def test_defaults_kinds_and_what_is_ours(reference: ModuleType) -> None:
    page = reference.flags_section()
    assert "| `-np` | number | 8, or nnUNet_def_n_proc | processes |" in page
    assert "| `-c` | text ... | 2d 3d_fullres 3d_lowres | configurations; those that the plans do not have" in page
    assert "| `--precision` * | auto, float32, bf16, fp16 | auto |" in page
    assert "| `-d` | id or name | required | dataset id or name |" in page
    assert "](#nnunetv2_status) * |" in reference.commands_section()


def test_every_link_belongs_to_a_command(reference: ModuleType) -> None:
    assert set(reference.LINKS) <= set(reference.scripts())
