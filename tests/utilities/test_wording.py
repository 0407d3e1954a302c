"""One thing, several things."""

from __future__ import annotations

from nnunet_lite.utilities.wording import counted, first_few


def test_counted() -> None:
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_first_few() -> None:
    assert [first_few([*"abc"], number) for number in (2, 3, 4)] == ["a, b ...", "a, b, c", "a, b, c"]
    assert first_few([*"abcdef"]) == "a, b, c, d, e ..." and first_few([]) == ""
