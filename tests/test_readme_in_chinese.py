"""README.zh-CN.md keeps step with README.md: the same commands and snippets, links to the same pages.

Its blocks are those of the README, which tests/integration/test_getting_started.py runs.
"""

from __future__ import annotations

import re

from helpers.pages import Block, all_blocks, pages

CHINESE, ENGLISH = "README.zh-CN.md", "README.md"


def _code(block: Block) -> list[str]:
    return [line.split("  #")[0].rstrip() for line in block.text.splitlines()]


def test_its_blocks_are_those_of_the_readme() -> None:
    original = [block for block in all_blocks(ENGLISH) if block.kind != "text"]  # without the map
    translated = all_blocks(CHINESE)
    assert len(translated) >= 4
    assert [(block.kind, _code(block), block.not_run) for block in translated] == [
        (block.kind, _code(block), block.not_run) for block in original
    ]


def test_comments_are_translated() -> None:
    commands = [line for block in all_blocks(CHINESE) if block.kind == "bash" for line in block.text.splitlines()]
    comments = [line.split("  # ")[1] for line in commands if "  # " in line]
    assert comments and all(re.search(r"[\u4e00-\u9fff]", comment) for comment in comments)


def test_it_leads_to_the_pages_for_newcomers() -> None:
    linked = set(re.findall(r"\]\(documentation/([\w-]+\.md)", pages()[CHINESE].read_text(encoding="utf-8")))
    assert {"getting-started.md", "how-to.md", "reference.md", "explanation.md", "porting.md"} <= linked
    assert "(README.md)" in pages()[CHINESE].read_text(encoding="utf-8")


def test_versions_are_the_same() -> None:
    versions = [
        set(re.findall(r"\d+\.\d+(?:\.\d+)?", pages()[page].read_text(encoding="utf-8").split("##")[0]))
        for page in (CHINESE, ENGLISH)
    ]
    assert versions[0] == versions[1]
