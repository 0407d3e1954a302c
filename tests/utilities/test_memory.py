"""Sizes and limits."""

from __future__ import annotations

import os

import pytest

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.memory import available_memory, format_size, memory_limit, memory_of, parse_size, rss


@pytest.mark.parametrize(
    ("text", "size"),
    [("16G", 16 * 2**30), ("800m", 800 * 2**20), ("1.5GiB", 3 * 2**29), ("1048576", 2**20), ("2048 KB", 2**21)],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-3G", "0", "3X"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="memory size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "meant"), [("16", "16G"), ("2.5", "2.5G"), ("512K", "512G")])
def test_next_to_no_memory_is_meant_otherwise(text: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"did you mean {meant}"):
        parse_size(text)


def test_readings_are_plausible() -> None:
    assert 2**20 < rss() < available_memory() + rss() <= 2 * memory_limit()
    assert rss(2**22 + 12345) == 0
    assert format_size(1536 * 2**20) == "1.5 GiB"


def test_memory_of_several_processes_counts_what_they_share_once() -> None:
    assert 2**20 < memory_of([os.getpid()]) < 1.2 * rss()
    assert memory_of([2**22 + 12345]) == 0
