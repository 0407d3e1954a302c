"""Mirroring: which copies in which order, and that each is flipped back."""

from __future__ import annotations

import pytest
import torch

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.test_time_augmentation import mirror_combinations, predict_mirrored


@pytest.mark.parametrize(
    ("axes", "firsts"),
    [
        ((0, 1, 2), [0, 48, 12, 3, 60, 51, 15, 63]),
        ((0, 2), [0, 48, 3, 51]),
        ((2, 0), [0, 3, 48, 51]),
        (None, [0]),
        ((), [0]),
    ],
)
@pytest.mark.parametrize("per_pass", [1, 3, 8])
def test_order_of_mirrored_copies(axes, firsts, per_pass):
    seen = []

    def network(tiles):
        seen.extend(tiles[:, 0, 0, 0, 0].tolist())
        return tiles

    volume = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    assert torch.equal(predict_mirrored(network, volume, mirror_combinations(axes), per_pass), volume)
    assert seen == firsts


def test_copies_are_flipped_back_and_averaged():
    marked = torch.zeros(2, 1, 2, 2)
    marked[:, :, 0, 0] = 1
    position = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    mean = predict_mirrored(lambda tiles: tiles * position, marked, mirror_combinations((0, 1)))
    assert mean[0, 0].tolist() == [[1.5, 0], [0, 0]]


def test_axis_the_patch_does_not_have():
    with pytest.raises(ArgumentError, match="axis 2"):
        predict_mirrored(lambda tiles: tiles, torch.zeros(1, 1, 4, 4), mirror_combinations((0, 2)))
