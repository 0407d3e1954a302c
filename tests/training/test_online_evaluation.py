"""Hard counts, pseudo Dice and collation of step results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.training.batch_distribution import share_of_batch
from nnunet_lite.training.online_evaluation import collate_outputs, dice_from_counts, hard_counts, to_host

LOGITS = ((torch.arange(24) % 7).float() - 3).div(2).reshape(2, 3, 2, 2)
LABELS = torch.tensor([[[0, 1], [2, 1]], [[0, 0], [2, 2]]])[:, None]


def test_golden_counts() -> None:
    counts = hard_counts(LOGITS, LABELS, has_regions=False, ignore_label=None)
    assert [count.tolist() for count in counts] == [[1, 0], [4, 2], [1, 3]]
    mean, per_class = dice_from_counts(*(count.numpy() for count in counts))
    assert per_class == pytest.approx([0.2857143, 0])
    assert mean == pytest.approx(0.14285714)


def test_ignored_voxels_count_nowhere() -> None:
    ignored = torch.full_like(LABELS, 3)
    assert all(int(count.sum()) == 0 for count in hard_counts(LOGITS, ignored, False, 3))


def test_regions_overlap_and_ignore_comes_last() -> None:
    target = torch.cat((LABELS > 0, LABELS == 2, LABELS == 1, LABELS == 0), 1)
    tp, fp, fn = hard_counts(torch.where(target[:, :3], 1.0, -1.0), target, True, 9)
    assert (tp.tolist(), fp.tolist(), fn.tolist()) == ([5, 3, 2], [0, 0, 0], [0, 0, 0])


def test_absent_class_is_nan_and_left_out_of_the_mean() -> None:
    mean, per_class = dice_from_counts(np.array([1, 0]), np.array([0, 0]), np.array([0, 0]))
    assert (mean, per_class[0]) == (1.0, 1.0)
    assert math.isnan(per_class[1])
    assert math.isnan(dice_from_counts(np.array([0]), np.array([0]), np.array([0]))[0])


def test_results_of_steps() -> None:
    steps = [{"loss": torch.tensor(float(i)), "tp_hard": torch.tensor([i, 2 * i]), "keys": [str(i)]} for i in range(3)]
    fetched = to_host(steps)
    assert all(isinstance(step["loss"], np.ndarray) and step["loss"].shape == () for step in fetched)
    collated = collate_outputs(fetched)
    assert np.mean(collated["loss"]) == 1
    assert collated["tp_hard"].tolist() == [[0, 0], [1, 2], [2, 4]]
    assert collated["keys"] == ["0", "1", "2"]
    assert isinstance(steps[0]["loss"], torch.Tensor), "what was given is not changed"
    with pytest.raises(ValueError, match="'x' is a dict"):
        collate_outputs([{"x": {}}])


@pytest.mark.parametrize(
    ("batch_size", "shares"),
    [
        (2, [(1, 0), (1, 1)]),
        (4, [(2, 0), (2, 0.5)]),
        (5, [(3, 0), (2, 1)]),
        (6, [(2, 0), (2, 0), (1, 1), (1, 1)]),
        (7, [(3, 0), (2, 0), (2, 1)]),
        (8, [(3, 0), (3, 1 / 3), (2, 1)]),
        (10, [(3, 0), (3, 0), (2, 0.5), (2, 1)]),
        (12, [(3, 0), (3, 0), (3, 1 / 3), (3, 1)]),
    ],
)
def test_share_of_batch(batch_size: int, shares: list[tuple[int, float]]) -> None:
    found = [share_of_batch(batch_size, len(shares), rank, 0.33) for rank in range(len(shares))]
    assert [size for size, _ in found] == [size for size, _ in shares]
    assert [part for _, part in found] == pytest.approx([part for _, part in shares])


def test_more_gpus_than_samples() -> None:
    with pytest.raises(ArgumentError, match="-num_gpus 2"):
        share_of_batch(2, 3, 0, 0.33)
