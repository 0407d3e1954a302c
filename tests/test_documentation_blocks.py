"""Every block of README and documentation is run by a test, or says why not; every flag that a page names exists."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from helpers.pages import ROOT, all_blocks, pages

RUN_BY = {  # page: the test that runs all blocks of these kinds
    "README.md": ("integration/test_getting_started.py", "bash python"),
    "README.zh-CN.md": ("test_readme_in_chinese.py", "bash python"),
    "augmentation.md": ("integration/test_augmentation_page.py", "bash python"),
    "benchmarking.md": ("integration/test_benchmarking_page.py", "bash"),
    "cascade.md": ("integration/test_training_pages.py", "bash python"),
    "choosing-a-model.md": ("integration/test_model_pages.py", "bash"),
    "coming-from-v1.md": ("dataset_conversion/test_how_to.py", "bash"),
    "dataset-format.md": ("test_dataset_format_page.py", "json"),
    "deploying.md": ("integration/test_deploying_page.py", "bash python"),
    "evaluation.md": ("integration/test_evaluation_page.py", "bash python"),
    "extending.md": ("integration/test_extending_page.py", "bash python"),
    "getting-started.md": ("integration/test_getting_started.py", "bash json"),
    "how-to.md": ("integration/test_how_to_page.py", "bash python"),
    "ignore-label.md": ("integration/test_training_pages.py", "bash python"),
    "inference-data-format.md": ("integration/test_inference_pages.py", "bash python"),
    "inference.md": ("integration/test_inference_page.py", "bash"),
    "logging.md": ("integration/test_finetuning_pages.py", "bash python"),
    "manual-splits.md": ("integration/test_training_pages.py", "bash python"),
    "memory-and-speed.md": ("integration/test_memory_and_speed_page.py", "bash"),
    "multi-gpu.md": ("integration/test_multi_gpu_page.py", "bash"),
    "normalization.md": ("integration/test_documentation_examples.py", "bash python json"),
    "plans.md": ("integration/test_documentation_examples.py", "bash python json"),
    "porting.md": ("integration/test_documentation_examples.py", "bash"),
    "preprocessing.md": ("integration/test_preprocessing_page.py", "bash python"),
    "pretrained-models.md": ("integration/test_inference_pages.py", "bash python"),
    "pretraining-and-finetuning.md": ("integration/test_finetuning_pages.py", "bash"),
    "python-api.md": ("integration/test_inference_pages.py", "python bash"),
    "region-based-training.md": ("integration/test_training_pages.py", "bash python"),
    "report.md": ("integration/test_report_page.py", "bash"),
    "residual-encoder-presets.md": ("integration/test_documentation_examples.py", "bash python json"),
    "resuming-and-clusters.md": ("integration/test_cluster_pages.py", "bash sbatch"),
    "sharing-models.md": ("integration/test_model_pages.py", "bash"),
    "training.md": ("integration/test_cluster_pages.py", "bash json"),
}
SHOWN = "text"  # what a program prints, layouts of folders: not for running


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    test, kinds = RUN_BY.get(page, ("no test", ""))
    for block in all_blocks(page):
        if block.kind == SHOWN:
            shown = re.match(r"nnUNetv2_\w+ ", block.text)
            assert not shown, f"commands belong into bash:\n{block.text}"
        else:
            assert block.not_run or block.kind in kinds.split(), (
                f"{page}: {test} runs {kinds or 'no blocks'} of it; have it run this one and say so in RUN_BY, "
                f"or write <!-- not run: REASON --> before it:\n{block.text}"
            )


def test_a_new_block_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "new.md"
    monkeypatch.setattr("helpers.pages.pages", lambda: {"new.md": page})
    page.write_text("# New\n\n```bash\nls\n```\n")
    with pytest.raises(AssertionError, match=r"new\.md: no test runs no blocks of it"):
        test_every_block_is_run_or_says_why_not("new.md")
    page.write_text("# New\n\n<!-- not run: needs two machines -->\n```bash\nls\n```\n")
    test_every_block_is_run_or_says_why_not("new.md")
    page.write_text("# New\n\n```text\nnnUNetv2_status -d 4\n```\n")
    with pytest.raises(AssertionError, match="commands belong into bash"):
        test_every_block_is_run_or_says_why_not("new.md")


@pytest.mark.parametrize("page", sorted(RUN_BY.keys() & pages().keys()))
def test_the_tests_that_are_said_to_run_them_read_the_page(page: str) -> None:
    source = (ROOT / "tests" / RUN_BY[page][0]).read_text(encoding="utf-8")
    assert f'"{page}"' in source
    if any(block.not_run and block.kind in RUN_BY[page][1].split() for block in all_blocks(page)):
        assert "from helpers.pages import" in source, "only helpers/pages.py passes over blocks that are not to be run"


@cache
def _reference() -> object:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "documentation" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _parser(command: str) -> argparse.ArgumentParser:
    reference = _reference()
    return reference.parser_of(reference.scripts()[command])  # type: ignore[attr-defined, no-any-return]


def _commands_in_text(text: str) -> list[str]:
    """Commands between single backticks, without ellipses that stand for the rest."""
    return [" ".join(found.split()) for found in re.findall(r"`(nnUNetv2_\w+ [^`]+)`", text)]


def unknown_flags(command: str) -> list[str]:
    """The words of a command that look like flags and are none of it (an unambiguous beginning is enough)."""
    name, *words = shlex.split(command, comments=True)
    known = [flag for action in _parser(name)._actions for flag in action.option_strings]
    flags = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [flag for flag in flags if not any(name == flag or name.startswith(f"{flag}") for name in known)]


def test_flags_that_do_not_exist_are_found() -> None:
    assert unknown_flags("nnUNetv2_train 4 2d 0 --c --npz -tr A -device cpu --epoch 3") == []
    assert unknown_flags("nnUNetv2_train 4 2d 0 --cc -fold 0 --precise") == ["--cc", "-fold", "--precise"]


@pytest.mark.parametrize("page", pages())
def test_every_flag_on_a_page_exists(page: str) -> None:
    text = pages()[page].read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    commands = [
        found
        for block in all_blocks(page)
        for line in block.lines
        for found in re.findall(r"(nnUNetv2_\w+ [^;|&>#]*)", line)
        if block.kind != "python"
    ]
    scripts = _reference().scripts()  # type: ignore[attr-defined]
    for command in [*commands, *_commands_in_text(prose)]:
        if command.split()[0] in scripts:  # that every command exists is seen elsewhere
            assert unknown_flags(command) == [], command


@pytest.mark.parametrize("page", pages())
def test_every_snippet_of_python_can_be_parsed(page: str) -> None:
    for block in all_blocks(page):
        if block.kind == "python":
            ast.parse(block.text)
