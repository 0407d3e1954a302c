"""Journals: what was appended is read again, whatever interrupted the writing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities.journal import Journal
from nnunet_lite.utilities.parts import WHOLE, Part


def test_parts_write_apart_and_are_read_together(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path / "new", "stage", Part(part, 2)) for part in (0, 1))
    assert list(first.read()) == [] and first.num_parts == 0
    first.append({"case": "a", "values": np.arange(3, dtype=np.float32)})
    second.append(("b", 1))
    first.append("c")
    records = list(Journal(tmp_path / "new", "stage", WHOLE).read())
    np.testing.assert_array_equal(records[0].pop("values"), [0, 1, 2])
    assert records == [{"case": "a"}, "c", ("b", 1)]
    assert first.num_parts == 2


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_record_that_was_cut_off_is_passed_over_and_overwritten(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, "stage", WHOLE)
    for record in ("one", "two"):
        journal.append(record)
    file = next(tmp_path.iterdir())
    os.truncate(file, file.stat().st_size - cut)
    after_the_kill = Journal(tmp_path, "stage", WHOLE)
    assert list(after_the_kill.read()) == ["one"]
    after_the_kill.append("three")
    assert list(after_the_kill.read()) == ["one", "three"]


def test_damage_ends_the_reading_and_nothing_is_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "stage", WHOLE)
    for record in ("one", "two", "three"):
        journal.append(record)
    file = next(tmp_path.iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert list(journal.read()) == ["one"]

    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("false",)

    journal.replace([])
    journal.append(Harmful())
    with pytest.raises(StorageError, match="delete it"):
        list(journal.read())


def test_names_of_other_stages_and_replacing(tmp_path: Path) -> None:
    others = [Journal(tmp_path, name, WHOLE) for name in ("stage.2", "stag", "stage[1]")]
    for other in others:
        other.append("other")
    part = Journal(tmp_path, "stage", Part(1, 3))
    part.append("old")
    whole = Journal(tmp_path, "stage", WHOLE)
    whole.replace(["new", "newer"])
    assert list(whole.read()) == list(part.read()) == ["new", "newer"]
    whole.append("newest")
    assert list(whole.read()) == ["new", "newer", "newest"]
    whole.remove()
    assert list(whole.read()) == [] and [list(other.read()) for other in others] == [["other"]] * 3


@pytest.mark.skipif(os.name == "nt", reason="no limit of file sizes there")
def test_nothing_follows_half_a_record_on_a_full_disk(tmp_path: Path) -> None:
    import resource

    journal = Journal(tmp_path, "stage", WHOLE)
    journal.append("one")
    file = next(tmp_path.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 5, before[1]))
        with pytest.raises(StorageError, match="No space left"):
            journal.append("two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.append("three")
    assert list(journal.read()) == ["one", "three"]
