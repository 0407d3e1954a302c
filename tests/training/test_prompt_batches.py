"""The first batch is made here, the rest by workers; the batches are those of any other way."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.data_loader import nnUNetDataLoader
from nnunet_lite.training.prompt_batches import PromptBatchIterator


class Labels(NamedTuple):
    """As much of a label manager as the loader needs."""

    has_ignore_label: bool = False
    all_labels: tuple[int, ...] = (0, 1)


class Dataset:
    """Random cases; or images that hold the number of the process that read them."""

    identifiers = ("a", "b", "c")

    def __init__(self, with_process: bool = False) -> None:
        self.with_process = with_process

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        data = np.random.default_rng(ord(identifier)).standard_normal((1, 8, 8, 8), dtype=np.float32)
        if self.with_process:
            data[:] = os.getpid()
        return data, np.zeros((1, 8, 8, 8), np.int16), None, {"class_locations": {1: []}}


def _loader(with_process: bool = False) -> nnUNetDataLoader:
    return nnUNetDataLoader(Dataset(with_process), 2, (4, 4, 4), (4, 4, 4), Labels(), seed=3)


def test_same_batches_across_the_end_of_an_epoch() -> None:
    options = {"start": (0, 1), "batches_per_epoch": 2}
    expected = BatchIterator(_loader(), 0, **options)
    with PromptBatchIterator(_loader(), 1, **options) as batches:
        for _ in range(3):
            one, other = next(expected), next(batches)
            assert one["keys"] == other["keys"]
            assert torch.equal(one["data"], other["data"])


def test_only_the_first_is_made_here() -> None:
    with PromptBatchIterator(_loader(with_process=True), 1) as batches:
        makers = [int(next(batches)["data"][0, 0, 0, 0, 0]) for _ in range(3)]
    assert makers[0] == os.getpid()
    assert os.getpid() not in makers[1:]


def test_without_workers_all_are_made_here() -> None:
    batches = PromptBatchIterator(_loader(with_process=True), 0)
    assert [int(next(batches)["data"][0, 0, 0, 0, 0]) for _ in range(2)] == [os.getpid()] * 2


def test_what_is_waited_for() -> None:
    """The first batch cannot be left before it is made; those of the workers can."""
    with PromptBatchIterator(_loader(), 1, start=(0, 4), batches_per_epoch=5) as batches:
        assert batches.describe_wait().startswith("Batch 4 of epoch 0 ")
        assert not batches.stops_waiting
        next(batches)
        assert batches.describe_wait().startswith("Batch 0 of epoch 1 ")
        assert "worker 1 of 1" in batches.describe_wait()
        assert batches.stops_waiting
