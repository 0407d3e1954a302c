"""One thing, several things."""

from __future__ import annotations

from nnunet_lite.utilities.wording import counted


def test_counted() -> None:
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
