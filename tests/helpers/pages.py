"""The blocks between fences of README and documentation, for the tests that run them.

A block that no test can run says so in the line before it, for the readers of the source alone:

    <!-- not run: needs two machines -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTATION = ROOT / "documentation"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?^```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.S
)


class Block(NamedTuple):
    """What stands between two fences: its language, its text, and why it is not run (empty: it is)."""

    kind: str
    text: str
    not_run: str = ""

    @property
    def lines(self) -> list[str]:
        """Commands: a line each, those that end in a backslash joined, comments and empty lines left out."""
        joined = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in joined if line.strip() and not line.startswith("#")]


def pages() -> dict[str, Path]:
    """Every page that people read, by its name."""
    files = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted(DOCUMENTATION.glob("*.md"))]
    return {file.name: file for file in [*files, ROOT / ".github" / "CONTRIBUTING.md"]}


def all_blocks(page: str, section: str = "") -> list[Block]:
    """Every block of a page, or of one section of it (the heading without its marks)."""
    text = pages()[page].read_text(encoding="utf-8")
    if section:
        mark, rest = re.split(rf"^(#+) {re.escape(section)}\n", text, maxsplit=1, flags=re.MULTILINE)[1:]
        text = re.split(rf"^#{{1,{len(mark)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return [Block(found["kind"], found["text"], found["why"] or "") for found in _BLOCK.finditer(text)]


def blocks(page: str, *kinds: str, section: str = "") -> list[Block]:
    """The blocks of these kinds that are to be run, in their order."""
    return [block for block in all_blocks(page, section) if block.kind in kinds and not block.not_run]
