"""Golden values of spec 02, section 12 (verified with upstream), and the edges around them."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_lite.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss, DC_and_topk_loss
from nnunet_lite.training.loss.deep_supervision import (
    DeepSupervisionWrapper,
    deep_supervision_scales,
    deep_supervision_weights,
)
from nnunet_lite.training.loss.dice import (
    MemoryEfficientSoftDiceLoss,
    SoftDiceLoss,
    get_tp_fp_fn_tn,
    softmax_helper_dim1,
)
from nnunet_lite.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss

LOGITS = ((torch.arange(24) % 7).float() - 3).div(2).reshape(2, 3, 2, 2)
LABELS = torch.tensor([[[0, 1], [2, 1]], [[0, 0], [2, 2]]])[:, None]
WITH_IGNORED = LABELS.clone()
WITH_IGNORED[1, 0, 1, 1] = 3
REGIONS = torch.cat((LABELS > 0, LABELS == 2, LABELS == 1), 1)
IGNORED_CHANNEL = WITH_IGNORED == 3
DICE = {"smooth": 1e-5, "do_bg": False}


def _dice_ce(batch_dice: bool, **options: object) -> DC_and_CE_loss:
    return DC_and_CE_loss({**DICE, "batch_dice": batch_dice}, {}, dice_class=MemoryEfficientSoftDiceLoss, **options)


def _dice_bce(batch_dice: bool, use_ignore_label: bool) -> DC_and_BCE_loss:
    return DC_and_BCE_loss({}, {"smooth": 1e-5, "do_bg": True, "batch_dice": batch_dice}, 1, 1, use_ignore_label)


def test_cross_entropy() -> None:
    assert float(RobustCrossEntropyLoss()(LOGITS, LABELS)) == pytest.approx(1.48537540, abs=1e-7)


@pytest.mark.parametrize("loss_class", [MemoryEfficientSoftDiceLoss, SoftDiceLoss])
@pytest.mark.parametrize(("batch_dice", "value"), [(False, -0.19051144), (True, -0.23376551)])
def test_dice(loss_class: type, batch_dice: bool, value: float) -> None:
    loss = loss_class(softmax_helper_dim1, batch_dice=batch_dice, **DICE)
    assert float(loss(LOGITS, LABELS)) == pytest.approx(value, abs=1e-7)


def test_dice_takes_labels_without_channel_axis_and_one_hot() -> None:
    loss = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, **DICE)
    one_hot = torch.stack([LABELS[:, 0] == label for label in range(3)], 1)
    assert loss(LOGITS, LABELS[:, 0]) == loss(LOGITS, LABELS) == loss(LOGITS, one_hot.float())


@pytest.mark.parametrize(("batch_dice", "value"), [(False, 1.29486394), (True, 1.25160992)])
def test_dice_and_cross_entropy(batch_dice: bool, value: float) -> None:
    assert float(_dice_ce(batch_dice)(LOGITS, LABELS)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("batch_dice", "value"), [(False, 1.25863945), (True, 1.19979417)])
def test_dice_and_cross_entropy_with_ignore_label(batch_dice: bool, value: float) -> None:
    assert float(_dice_ce(batch_dice, ignore_label=3)(LOGITS, WITH_IGNORED)) == pytest.approx(value, abs=1e-6)


def test_everything_ignored_is_minus_one_with_finite_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = _dice_ce(False, ignore_label=3)(logits, torch.full_like(LABELS, 3))
    loss.backward()
    assert float(loss.detach()) == -1
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_labels_of_two_channels_cannot_have_an_ignore_label() -> None:
    with pytest.raises(ValueError, match="ignore label"):
        _dice_ce(False, ignore_label=3)(LOGITS, LABELS.repeat(1, 2, 1, 1))


@pytest.mark.parametrize(("batch_dice", "value"), [(False, 0.38945791), (True, 0.34986019)])
def test_regions(batch_dice: bool, value: float) -> None:
    assert float(_dice_bce(batch_dice, False)(LOGITS, REGIONS)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("batch_dice", "value"), [(False, 2.05104923), (True, 1.99247384)])
def test_regions_with_ignored_voxels(batch_dice: bool, value: float) -> None:
    target = torch.cat((REGIONS, IGNORED_CHANNEL), 1)
    assert float(_dice_bce(batch_dice, True)(LOGITS, target)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("batch_dice", "value"), [(False, 1.97285008), (True, 1.93325233)])
def test_regions_with_an_empty_ignore_channel(batch_dice: bool, value: float) -> None:
    target = torch.cat((REGIONS, torch.zeros_like(IGNORED_CHANNEL)), 1)
    assert float(_dice_bce(batch_dice, True)(LOGITS, target)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "target", "value"),
    [
        ({}, LABELS, 2.11850595),
        ({"label_smoothing": 0.1}, LABELS, 2.05183935),
        ({"ignore_index": 3}, WITH_IGNORED, 2.11850595),
    ],
)
def test_top_k(options: dict[str, float], target: torch.Tensor, value: float) -> None:
    assert float(TopKLoss(k=50, **options)(LOGITS, target)) == pytest.approx(value, abs=1e-6)


def test_top_k_of_too_few_voxels_is_nan() -> None:
    assert math.isnan(float(TopKLoss(k=10)(LOGITS, LABELS)))


def test_dice_and_top_k() -> None:
    assert float(DC_and_topk_loss(DICE, {"k": 50})(LOGITS, LABELS)) == pytest.approx(1.92799449, abs=1e-6)


def test_perfect_prediction_is_minus_one() -> None:
    target = torch.tensor([[[[0, 1], [1, 0]]]])
    logits = torch.where(torch.cat((target == 0, target == 1), 1), 100.0, -100.0)
    assert float(_dice_ce(False)(logits, target)) == pytest.approx(-1)


def test_loss_of_half_precision_logits_is_computed_in_float32() -> None:
    logits = LOGITS.bfloat16()
    loss = _dice_ce(False)(logits, LABELS)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(_dice_ce(False)(logits.float(), LABELS)), abs=1e-7)


def test_memory_efficient_dice_has_the_gradient_of_the_plain_formula() -> None:
    logits, reference = LOGITS.double().requires_grad_(), LOGITS.double().requires_grad_()
    MemoryEfficientSoftDiceLoss(lambda x: torch.softmax(x, 1), **DICE)(logits, LABELS).backward()
    probabilities = torch.softmax(reference, 1)[:, 1:]
    one_hot = torch.stack([LABELS[:, 0] == label for label in (1, 2)], 1).double()
    axes = (2, 3)
    dice = (2 * (probabilities * one_hot).sum(axes) + 1e-5) / (probabilities.sum(axes) + one_hot.sum(axes) + 1e-5)
    (-dice.mean()).backward()
    assert torch.allclose(logits.grad, reference.grad, atol=1e-6)


def test_counts() -> None:
    predicted = torch.nn.functional.one_hot(LOGITS.argmax(1), 3).movedim(-1, 1)
    tp, fp, fn, tn = get_tp_fp_fn_tn(predicted, LABELS, axes=(0, 2, 3))
    assert [counts.tolist() for counts in (tp, fp, fn, tn)] == [[1, 1, 0], [0, 4, 2], [2, 1, 3], [5, 2, 3]]


def test_counts_pass_masked_voxels_over() -> None:
    mask = torch.zeros_like(LABELS)
    assert all(float(counts.sum()) == 0 for counts in get_tp_fp_fn_tn(LOGITS, LABELS, axes=(0, 2, 3), mask=mask))


@pytest.mark.parametrize(
    ("number", "lowest", "weights"),
    [
        (1, 0.0, [1.0]),
        (2, 0.0, [1.0, 0.0]),
        (3, 0.0, [2 / 3, 1 / 3, 0.0]),
        (5, 0.0, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0]),
        (7, 0.0, [32 / 63, 16 / 63, 8 / 63, 4 / 63, 2 / 63, 1 / 63, 0.0]),
        (3, 1e-6, [0.6666662222, 0.3333331111, 6.6666622222e-07]),
    ],
)
def test_deep_supervision_weights(number: int, lowest: float, weights: list[float]) -> None:
    assert deep_supervision_weights(number, lowest) == pytest.approx(weights, rel=1e-9)


def test_deep_supervision_adds_weighted_losses_and_skips_weight_zero() -> None:
    class Recorder(torch.nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            seen.append(float(output))
            return output * target

    seen: list[float] = []
    outputs, targets = [torch.tensor(v) for v in (1.0, 2.0, 3.0)], [torch.tensor(10.0)] * 3
    loss = DeepSupervisionWrapper(Recorder(), [0.5, 0.25, 0.0])(outputs, targets)
    assert (float(loss), seen) == (10.0, [1.0, 2.0])


def test_deep_supervision_needs_a_weight() -> None:
    with pytest.raises(ValueError, match="other than 0"):
        DeepSupervisionWrapper(torch.nn.Identity(), [0.0, 0.0])


def test_deep_supervision_scales() -> None:
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert deep_supervision_scales(strides) == [[1, 1, 1], [1, 0.5, 0.5], [0.5, 0.25, 0.25], [0.25, 0.125, 0.125]]
