"""The estimate of what sums over tiles take, against what is really allocated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.allocated import Allocated
from torch import nn

from nnunet_lite.inference import memory_of_sums
from nnunet_lite.inference.banded_prediction import predict_in_bands
from nnunet_lite.inference.logit_prediction import Ensemble, PredictionSettings, predict_logits
from nnunet_lite.inference.memory_of_sums import MemoryOfSums, bands_are_lines, most_bytes_of_sums, padded_shape
from nnunet_lite.inference.sliding_window_prediction import pad_to_tile
from nnunet_lite.utilities.device import num_threads


class Constant(nn.Module):
    """Many heads from next to no memory: one number, seen as often as needed."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.ones((len(tiles), self.heads, *tiles.shape[2:]))


def settings(patch: tuple[int, ...], heads: int, dtype: torch.dtype) -> PredictionSettings:
    cpu = torch.device("cpu")
    return PredictionSettings(patch, 0.5, True, None, heads, cpu, False, None, dtype, images_per_pass=1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is of constant size shall be small beside these images."""
    monkeypatch.setattr("nnunet_lite.inference.sliding_window_prediction._SCALED", 2**9)
    for module in ("memory_of_sums", "banded_prediction"):
        monkeypatch.setattr(f"nnunet_lite.inference.{module}.PIECE", 2**12)


def test_the_mode_counts() -> None:
    with Allocated() as allocated:
        first = torch.zeros(1000)
        second = first + 1
        first.add_(second[3:4])
        del second
        third = first.half()
    assert allocated.now == 6000 and allocated.most == 8000 and len(third) == 1000


def most(chosen: PredictionSettings, shape: tuple[int, ...], members: int, *, lines: bool | None = None) -> int:
    """Bytes allocated at the most; in bands unless `lines` is None."""
    model, image = Constant(chosen.heads), torch.zeros((1, *shape))
    weights: list[dict[str, Any]] = [{} for _ in range(members)]
    with num_threads(1), torch.inference_mode(), Allocated() as allocated:
        if lines is None:
            predict_logits(model, image, chosen, weights, lambda member: None)
        else:
            predict_in_bands(Ensemble(model, chosen, weights), image, lambda: lambda *piece: None, lines=lines)
    return allocated.most


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("patch", "shape"), [((8, 8, 8), (40, 30, 30)), ((16, 16), (3, 120, 100)), ((16, 16), (1, 3, 5000))]
)
def test_sums_of_the_whole_image(patch, shape, dtype, members):
    heads = 6
    found = most(settings(patch, heads, dtype), shape, members)
    sums = MemoryOfSums(shape, patch, heads, members, dtype.itemsize)
    network = 3 * heads * 4 * 512 + 2**16  # outputs of a pass, small things
    padding = sums.image(1) if padded_shape(shape, patch) != shape else 0
    assert 0.93 * sums.whole < found < 1.02 * sums.whole + padding + network


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("patch", "shape", "lines"),
    [((8, 8, 8), (40, 16, 16), False), ((8, 8), (1, 100, 40), True), ((16, 16), (20, 30, 30), False)],
)
def test_sums_of_a_band(patch, shape, lines, members):
    heads = 6
    found = most(settings(patch, heads, torch.float16), shape, members, lines=lines)
    sums = MemoryOfSums(shape, patch, heads, members)
    band = sums.band(lines=lines)
    assert 0.5 * band < found < band + 3 * heads * 4 * 512 + 2**16
    assert band < sums.whole


def test_shapes_are_padded_as_images_are():
    for shape in ((3, 9, 4), (10, 2, 7)):
        for patch in ((8, 8), (5, 8, 6)):
            padded, _ = pad_to_tile(torch.zeros((1, *shape)), patch)
            assert padded_shape(shape, patch) == padded.shape[1:]
    assert MemoryOfSums((3, 9, 4), (8, 8), 5).image(2) == 4 * 2 * 3 * 9 * 8


def test_bands_are_lines_of_large_planes_only():
    assert bands_are_lines((512, 512), 3, (1, 20000, 20000), (1, 20000, 20000))
    assert not bands_are_lines((512, 512), 3, (1, 400, 400), (1, 400, 400))
    assert not bands_are_lines((512, 512), 3, (2, 20000, 20000), (1, 20000, 20000))
    assert not bands_are_lines((64, 512, 512), 3, (1, 20000, 20000), (1, 20000, 20000))


def test_the_limit_follows_the_memory_and_max_ram(monkeypatch):
    monkeypatch.setattr(memory_of_sums, "available_memory", lambda: 64 * 2**30)
    assert most_bytes_of_sums() == most_bytes_of_sums(32 * 2**30) == memory_of_sums.BANDED_PREDICTION_BYTES
    assert most_bytes_of_sums(3 * 2**30) == 2**29
    monkeypatch.setattr(memory_of_sums, "available_memory", lambda: 600)
    assert most_bytes_of_sums() == most_bytes_of_sums(2**30) == 100
