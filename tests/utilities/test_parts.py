"""Which cases a part works on."""

from __future__ import annotations

import logging

import pytest

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.parts import WHOLE, Part, check_part


@pytest.mark.parametrize("num_parts", [1, 2, 3, 12])
def test_every_item_belongs_to_exactly_one_part(num_parts: int) -> None:
    items = "abcdefg"
    parts = [check_part(num_parts, part_id).of(items) for part_id in range(num_parts)]
    assert sorted("".join(map("".join, parts))) == list(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_whole() -> None:
    assert check_part(1, 0) == WHOLE and WHOLE.is_whole and not Part(0, 2).is_whole
    assert WHOLE.of({"a": 1, "b": 2}) == ["a", "b"]


def test_the_cases_of_a_part_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        assert Part(0, 2).of_cases("abc") == ["a", "c"]
        assert WHOLE.of_cases("abc") == ["a", "b", "c"]
    assert caplog.messages == ["Part 0 of 2: 2 of 3 cases"]


@pytest.mark.parametrize(("num_parts", "part_id"), [(2, -1), (2, 2), (0, 0), (-1, 0)])
def test_impossible_numbers_are_refused(num_parts: int, part_id: int) -> None:
    with pytest.raises(ArgumentError, match="expected 0 to 1" if num_parts == 2 else "expected 1 or more"):
        check_part(num_parts, part_id)
