"""Parts of a batch, put together, are the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from nnunet_lite.training.batch_distribution import BatchShare, gather_shares, share_of_batch
from nnunet_lite.training.data_loader import is_forced_foreground, nnUNetDataLoader
from nnunet_lite.utilities import distributed


class _Labels(NamedTuple):
    has_ignore_label: bool = False
    all_labels: tuple[int, ...] = (0, 1)


class _Cases:
    """Five cases, all voxels of which hold the number of their place, and one voxel of foreground each."""

    identifiers = ("a", "b", "c", "d", "e")

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        data = np.arange(20**3, dtype=np.float32).reshape(1, 20, 20, 20) + ord(identifier) * 10**4
        return data, np.zeros((1, 20, 20, 20), np.int16), None, {"class_locations": {1: np.array([[0, 3, 16, 5]])}}


def _loader(size: int, percent: float, part_of: tuple[int, int] | None = None, by_chance: bool = False) -> Any:
    options: dict[str, Any] = {"probabilistic_oversampling": by_chance, "seed": 5, "part_of": part_of}
    return nnUNetDataLoader(_Cases(), size, (4, 4, 4), (4, 4, 4), _Labels(), percent, **options)


@pytest.mark.parametrize("by_chance", [False, True])
@pytest.mark.parametrize(("whole", "processes"), [(2, 2), (5, 2), (6, 4), (7, 3), (10, 4), (12, 4), (9, 1)])
def test_parts_of_a_batch(whole: int, processes: int, by_chance: bool) -> None:
    expected = _loader(whole, 0.33, by_chance=by_chance).generate_batch(2, 3)
    parts, first = [], 0
    for number in range(processes):
        size, percent = share_of_batch(whole, processes, number, 0.33)
        loader = _loader(size, 0.33 if by_chance else percent, (first, whole), by_chance)
        parts.append(loader.generate_batch(2, 3))
        assert loader.case_ids(2, 3) == parts[-1]["keys"]
        first += size
    assert first == whole
    assert torch.equal(torch.cat([part["data"] for part in parts]), expected["data"])
    assert [key for part in parts for key in part["keys"]] == expected["keys"]


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.33, 0.5, 1.0])
def test_shares_force_the_same_samples_as_the_whole(percent: float) -> None:
    for whole in range(1, 25):
        for processes in range(1, whole + 1):
            forced = []
            for number in range(processes):
                size, share = share_of_batch(whole, processes, number, percent)
                forced += [is_forced_foreground(position, size, share) for position in range(size)]
            assert forced == [is_forced_foreground(position, whole, percent) for position in range(whole)]


def test_weights_of_shares_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather_shares(3) == BatchShare(0, 3, 3)
    monkeypatch.setattr("nnunet_lite.training.batch_distribution.world_size", lambda: 3)
    weights = [BatchShare(first, size, 7).weight for first, size in ((0, 3), (3, 2), (5, 2))]
    assert sum(weights) / 3 == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(1.5)


def test_the_gpu_is_that_of_the_place_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (distributed.local_rank(), distributed.local_world_size()) == (0, 1)  # variables alone make no group
    for name, value in (("is_distributed", True), ("rank", 3), ("world_size", 4)):
        monkeypatch.setattr(distributed, name, lambda value=value: value)
    assert (distributed.local_rank(), distributed.local_world_size()) == (1, 2)
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
    assert (distributed.local_rank(), distributed.local_world_size()) == (3, 4)
