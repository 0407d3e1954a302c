"""Logits to labels in blocks: equal to resizing everything first, on the CPU and as it is done on a device."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from helpers.allocated import Allocated
from skimage.transform import resize

from nnunet_lite.inference import device_reduction, logit_reduction
from nnunet_lite.inference.device_reduction import can_reduce_on_device, reduce_logits_on_device
from nnunet_lite.inference.logit_reduction import for_each_block, index_of_largest, reduce_logits
from nnunet_lite.inference.probability_channels import export_labels_and_probabilities
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import InterpolationPlan, interpolation_plan
from nnunet_lite.preprocessing.resampling import resample_image


def plain(count: int) -> LabelManager:
    return LabelManager({"background": 0, **{f"l{label}": label for label in range(1, count)}}, None)


def regions() -> LabelManager:
    return LabelManager({"background": 0, "whole": [1, 2, 7], "core": [2, 300], "rim": 7}, [300, 2, 7])


def random_case(seed: int) -> tuple[torch.Tensor, InterpolationPlan, LabelManager]:
    """Any shapes (1-voxel axes too), up or down, thick slices along any axis, any of the number types, any labels."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 14, 3)
    out = [int(n) if rng.random() < 0.3 else int(rng.integers(1, 20)) for n in shape]
    spacing = [1.0, 1.0, 1.0]
    if rng.random() < 0.5:
        spacing[rng.integers(3)] = 5.0
    plan = interpolation_plan(shape.tolist(), out, spacing, spacing, 1, int(rng.integers(2)), None)
    gaps = LabelManager({"background": 0, "a": 4, "b": 1000}, None)
    manager = [plain(1), plain(2), plain(7), plain(260), regions(), gaps][rng.integers(6)]
    dtype = [torch.float16, torch.float32, torch.bfloat16][rng.integers(3)]
    logits = torch.from_numpy(rng.normal(0, 3, (manager.num_segmentation_heads, *shape)).astype(np.float32)).to(dtype)
    return logits, plan, manager


def resized(logits: torch.Tensor, plan: InterpolationPlan) -> torch.Tensor:
    """The whole of it, in double precision, rounded once."""
    return torch.from_numpy(resample_image(logits.double().numpy(), plan)).to(logits.dtype).float()


def are_ties(values: torch.Tensor, manager: LabelManager, dtype: torch.dtype) -> np.ndarray:
    """Where two heads (or a head and the threshold) are as close as the two roundings on the way can bring them."""
    ulp = torch.finfo(dtype).eps * values.abs().amax(0) + 1e-5
    if manager.has_regions:
        return (values.abs().amin(0) <= ulp).numpy()
    if len(values) == 1:
        return np.zeros(values.shape[1:], bool)
    first, second = values.topk(2, 0).values
    return (first - second <= 2 * ulp).numpy()


def empty(plan: InterpolationPlan, manager: LabelManager) -> np.ndarray:
    return np.full([axis.size_out for axis in plan.axes], 77, manager.output_dtype)


@pytest.mark.parametrize("shape_out", [(13, 19, 24), (6, 8, 9), (10, 30, 11)])
def test_logits_are_rounded_as_those_of_scikit_image(shape_out: tuple[int, int, int]) -> None:
    """Interpolated in float32, one in a hundred would be the other neighbour in half precision.

    What is left lies in the middle between the two, as far as float64 can tell.
    """
    logits = torch.from_numpy(np.random.default_rng(3).normal(0, 8, (4, 10, 14, 17))).half()
    exact = np.stack([resize(head.double().numpy(), shape_out, 1, mode="edge", anti_aliasing=False) for head in logits])
    plan = interpolation_plan(logits.shape[1:], shape_out, (1, 1, 1), (1, 1, 1), 1)
    found = np.empty((4, *shape_out), np.float32)

    def block(index: int, rows: slice, values: torch.Tensor) -> None:
        found[:, index, rows] = values.numpy()

    def repeat(index: int, rows: slice) -> None:
        raise AssertionError("no plane equals the one before it")

    for_each_block(logits, plan, block, repeat, 1)
    on_device = device_reduction._interpolated(logits, plan, slice(None), slice(None)).numpy()
    assert np.array_equal(on_device, found)
    expected = exact.astype(np.float16).astype(np.float32)
    differ = found != expected
    middle = (found + expected)[differ] / 2
    assert np.allclose(exact[differ], middle, rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", range(40))
def test_any_case_equals_resizing_everything_first(seed, monkeypatch):
    logits, plan, manager = random_case(seed)
    values = resized(logits, plan)
    expected = np.asarray(manager.convert_logits_to_segmentation(values.numpy()))
    ties = are_ties(values, manager, logits.dtype)
    for block, planes, threads in ((2**18, 64, 1), (1, 64, 2), (100, 3, 3)):
        monkeypatch.setattr(logit_reduction, "_BLOCK", block)
        monkeypatch.setattr(logit_reduction, "_PLANES", planes)
        labels = empty(plan, manager)
        reduce_logits(logits, plan, manager, labels, threads=threads)
        assert np.array_equal(labels[~ties], expected[~ties])
    for budget in (None, 1, 3000):
        labels = empty(plan, manager)
        reduce_logits_on_device(logits, plan, manager, labels, budget)
        assert np.array_equal(labels[~ties], expected[~ties])


@pytest.mark.parametrize("seed", range(60, 80))
def test_probabilities_by_channel_equal_those_at_once(seed, tmp_path):
    logits, plan, manager = random_case(seed)
    image = tuple(axis.size_out + extra for axis, extra in zip(plan.axes, (0, 2, 1), strict=True))[::-1]
    labels = np.zeros(image, manager.output_dtype)

    def inside(array: np.ndarray) -> np.ndarray:
        return array.transpose(2, 1, 0)[:, 1:-1, 1:]

    export_labels_and_probabilities(logits, plan, manager, labels, inside, tmp_path / "a.npz", 2)
    expected_labels = empty(plan, manager)
    expected = np.empty((len(logits), *expected_labels.shape), np.float32)
    reduce_logits(logits, plan, manager, expected_labels, expected)
    assert np.array_equal(inside(labels), expected_labels)
    with np.load(tmp_path / "a.npz") as archive:
        probabilities = archive["probabilities"]
    assert probabilities.shape == (len(logits), *image)
    found = np.stack([inside(channel) for channel in probabilities])
    assert np.allclose(found, expected, rtol=2e-5, atol=1e-7)
    for channel, background in zip(probabilities, [not manager.has_regions, *[False] * 300], strict=False):
        inside(channel)[:] = background
        assert (channel == background).all()  # outside the crop, too
    inside(labels)[:] = 0
    assert not labels.any()


@pytest.mark.parametrize("heads", [1, 2, 25, 255, 256, 300])
def test_index_of_largest(heads):
    rng = np.random.default_rng(heads)
    block = rng.integers(-3, 3, (heads, 7, 5)).astype(np.float32)  # ties everywhere
    block[:, 0, 0] = -np.inf
    block[-1, 1, 1] = np.inf
    assert np.array_equal(index_of_largest(block), block.argmax(0))
    block[heads // 2, 2, 3] = np.nan
    assert np.array_equal(index_of_largest(block), block.argmax(0))


def test_values_that_are_not_finite_stay_where_they_are():
    logits = torch.zeros((2, 4, 6, 5))
    logits[1, 0, 0, 0] = torch.inf
    logits[0, 3, 5, 4] = -torch.inf
    plan = interpolation_plan((4, 6, 5), (8, 12, 5), (1, 1, 1), (0.5, 0.5, 1), 1)
    labels = np.zeros((8, 12, 5), np.uint8)
    reduce_logits(logits, plan, plain(2), labels)
    assert labels[0, 0, 0] == 1 and not labels[2:6, 3:9, 1:4].any()


def test_blocks_are_small_whatever_the_image(monkeypatch):
    """A plane of 1500 x 2000 with 3 heads is 36 MB in float32; no block of it is larger than a MiB."""
    largest = []
    reduction = logit_reduction.reduction_to_labels
    monkeypatch.setattr(
        logit_reduction,
        "reduction_to_labels",
        lambda manager: lambda block: largest.append(block.numel()) or reduction(manager)(block),
    )
    logits = torch.randn((3, 1, 300, 400), generator=torch.Generator().manual_seed(0)).half()
    plan = interpolation_plan((1, 300, 400), (1, 1500, 2000), (1, 5, 5), (1, 1, 1), 1)
    reduce_logits(logits, plan, plain(3), np.zeros((1, 1500, 2000), np.uint8))
    assert sum(largest) == 3 * 1500 * 2000 and max(largest) <= 2**18


def test_a_failing_block_ends_the_export(monkeypatch):
    def fail(manager: LabelManager) -> Any:
        def reduce(block: torch.Tensor) -> Any:
            raise MemoryError("no more")

        return reduce

    monkeypatch.setattr(logit_reduction, "reduction_to_labels", fail)
    plan = interpolation_plan((40, 9, 9), (40, 9, 9), (1, 1, 1), (1, 1, 1), 1)
    for threads in (1, 3):
        with pytest.raises(MemoryError, match="no more"):
            reduce_logits(torch.zeros((2, 40, 9, 9)), plan, plain(2), np.zeros((40, 9, 9), np.uint8), threads=threads)


@pytest.mark.parametrize("shape", [(6, 10, 10), (12, 20, 20), (60, 20, 20), (20, 80, 20)])
def test_boxes_keep_to_their_budget_also_where_logits_are_finer_than_the_image(shape):
    logits = torch.randn((3, *shape), generator=torch.Generator().manual_seed(0)).half()
    plan = interpolation_plan(shape, (12, 20, 20), (1, 1, 1), (1, 1, 1), 1)
    budget = 4 * 6 * 3 * 6 * 20 * 20  # for six planes of the result
    found, expected = (np.zeros((12, 20, 20), np.uint8) for _ in range(2))
    with Allocated() as allocated:
        reduce_logits_on_device(logits, plan, plain(3), found, budget)
    assert budget / 10 < allocated.most <= budget
    reduce_logits(logits, plan, plain(3), expected)
    assert np.mean(found != expected) < 0.01  # ties


@pytest.mark.parametrize("failures", [1, 100])
def test_without_memory_on_the_device_boxes_shrink_then_the_cpu_takes_over(failures, monkeypatch, caplog):
    logits, plan, manager = random_case(3)
    interpolate = device_reduction._interpolated
    calls = []

    def scarce(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) <= failures:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return interpolate(*arguments)

    monkeypatch.setattr(device_reduction, "_interpolated", scarce)
    found, expected = empty(plan, manager), empty(plan, manager)
    with caplog.at_level(logging.WARNING):
        reduce_logits_on_device(logits, plan, manager, found, 2**30)
    reduce_logits(logits, plan, manager, expected)
    assert np.mean(found != expected) < 0.01
    assert ("done on the CPU" in caplog.text) == (failures == 100)


def test_a_label_manager_of_ones_own_stays_on_the_cpu():
    class Mine(LabelManager):
        def convert_logits_to_segmentation(self, predicted_logits: Any) -> Any:
            return np.full(predicted_logits.shape[1:], 5)

    mine = Mine({"background": 0, "a": 1}, None)
    assert can_reduce_on_device(plain(2)) and not can_reduce_on_device(mine)
    labels = np.zeros((2, 2, 2), np.uint8)
    plan = interpolation_plan((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1)
    reduce_logits(torch.zeros((2, 2, 2, 2)), plan, mine, labels)
    assert (labels == 5).all()
