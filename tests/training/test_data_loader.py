"""Golden facts of spec 02, 3.4-3.6; batches depend on (seed, epoch, index) alone, however they are made."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from helpers.loaders import Labels, MemoryDataset, Misbehaving, default_loader, make_loader

from nnunet_lite.exceptions import ArgumentError, ExtensionError
from nnunet_lite.training import data_loader
from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms, get_validation_transforms
from nnunet_lite.training.data_augmentation.segmentation_transforms import MirrorTransform
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms
from nnunet_lite.training.data_loader import is_forced_foreground, nnUNetDataLoader, patch_bounds


class LegacyRandom(np.random.RandomState):
    """Upstream's generator with the method names of today."""

    def integers(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        return self.randint(low, high, size)


@pytest.mark.parametrize(
    ("patch", "final", "shape", "low", "high"),
    [
        ((16, 16, 16), (12, 12, 12), (10, 20, 30), [-3, -2, -2], [-3, 6, 16]),
        ((17, 17, 17), (12, 12, 12), (10, 20, 30), [-4, -3, -3], [-3, 6, 16]),
        ((17, 20, 24), (12, 12, 12), (12, 12, 12), [-3, -4, -6], [-2, -4, -6]),
        ((205, 205, 205), (128, 128, 128), (100, 200, 300), [-53, -39, -39], [-52, 34, 134]),
        ((5, 9, 9), (4, 8, 8), (4, 8, 8), [-1, -1, -1], [0, 0, 0]),
        ((1, 8, 8), (1, 6, 6), (5, 20, 20), [0, -1, -1], [4, 13, 13]),
    ],
)
def test_bounds(patch: Any, final: Any, shape: Any, low: list[int], high: list[int]) -> None:
    assert patch_bounds(shape, patch, final) == (low, high)


def test_the_last_samples_are_forced() -> None:
    counts = {1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 3, 9: 3, 10: 3, 11: 4, 12: 4}
    for size, count in counts.items():
        forced = [is_forced_foreground(j, size, 0.33) for j in range(size)]
        assert forced == [False] * (size - count) + [True] * count


def test_positions_are_upstreams() -> None:
    loader = make_loader((16, 16, 16), (12, 12, 12))
    voxels = {
        1: np.array([[0, 5, 6, 7], [0, 15, 16, 17], [0, 25, 26, 27]]),
        2: np.array([[0, 20, 30, 40], [0, 21, 31, 41]]),
    }
    rng: Any = LegacyRandom(1234)
    starts = [loader.get_bbox((30, 40, 50), False, voxels, rng=rng)[0] for _ in range(3)]
    assert starts == [[13, 17, 36], [10, 18, 22], [13, 15, 21]]
    rng = LegacyRandom(1234)
    starts = [loader.get_bbox((30, 40, 50), True, voxels, rng=rng)[0] for _ in range(4)]
    assert starts == [[13, 23, 33], [7, 8, 9], [-2, -2, -1], [7, 8, 9]]
    assert [loader.identifiers[i] for i in LegacyRandom(1234).integers(0, 3, size=2)] == ["c", "b"]


def test_forced_patches_may_leave_the_image_further() -> None:
    loader = make_loader((16, 16, 16), (12, 12, 12))
    starts, ends = loader.get_bbox((30, 30, 30), True, {1: np.array([[0, 29, 29, 29]])})
    assert (starts[0], ends[0]) == (21, 37)
    with_class = loader.get_bbox((30, 30, 30), True, {1: np.array([[0, 29, 29, 29]]), 2: [[0, 9, 9, 9]]}, 2)
    assert with_class[0] == [1, 1, 1]


def test_ignore_label() -> None:
    dataset = MemoryDataset(["a"])
    loader = nnUNetDataLoader(dataset, 1, (4, 4, 4), (4, 4, 4), Labels(True), 0.33)
    everywhere = {1: np.full((1, 4), 10), 2: np.full((1, 4), 20), (-1, 0, 1, 2): np.full((1, 4), 30)}
    rng = np.random.default_rng(0)
    unforced = {tuple(loader.get_bbox((40, 40, 40), False, everywhere, rng=rng)[0]) for _ in range(20)}
    assert unforced == {(28, 28, 28)}
    forced = [loader.get_bbox((40, 40, 40), True, everywhere, rng=rng)[0][0] for _ in range(200)]
    assert set(forced) == {8, 18} and 70 < forced.count(8) < 130
    nothing_else = {1: [], (-1, 0, 1, 2): np.full((1, 4), 30)}
    assert loader.get_bbox((40, 40, 40), True, nothing_else, rng=rng)[0] == [28, 28, 28]


def test_outside_is_zero_and_minus_one() -> None:
    dataset = MemoryDataset(["a"], shape=(5, 6, 7), cascade=True)
    batch = make_loader((9, 9, 9), (9, 9, 9), dataset=dataset).generate_batch(0, 0)
    data, seg, previous, _ = dataset.load_case("a")
    assert batch["data"].shape == (2, 2, 9, 9, 9) and batch["data"].dtype == torch.float32
    assert batch["target"].shape == (2, 2, 9, 9, 9) and batch["target"].dtype == torch.int16
    inside = (slice(2, 7), slice(2, 8), slice(1, 8))
    start = [int(np.argmax((batch["target"][0, 1].numpy() >= 0).any(d[0]).any(d[1]))) for d in ((1, 1), (0, 1), (0, 0))]
    inside = tuple(slice(s, s + n) for s, n in zip(start, (5, 6, 7), strict=True))
    np.testing.assert_array_equal(batch["data"][0][(slice(None), *inside)], data)
    np.testing.assert_array_equal(batch["target"][0, 0][inside], seg[0])
    np.testing.assert_array_equal(batch["target"][0, 1][inside], previous)
    assert batch["data"].abs().sum() == pytest.approx(2 * float(np.abs(data).sum()), rel=1e-5)
    assert int((batch["target"][0, 1] == -1).sum()) == 9**3 - 5 * 6 * 7


def test_slices_of_volumes() -> None:
    loader = make_loader((10, 10), (8, 8), transforms=get_training_transforms((8, 8), 0.3, None, (0, 1), False))
    batch = loader.generate_batch(0, 0)
    assert batch["data"].shape == (2, 2, 8, 8) and batch["target"].shape == (2, 1, 8, 8)


def test_a_pipeline_of_the_users_that_returns_no_dictionary() -> None:
    loader = make_loader((8, 8), (8, 8), transforms=lambda image, segmentation: image)
    with pytest.raises(ExtensionError, match="returned a Tensor, expected a dictionary with image, segmentation"):
        loader.generate_batch(0, 0)


def test_samples_augmented_together_are_those_augmented_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = default_loader(batch_size=7), default_loader(batch_size=7)
    expected = together.generate_batch(1, 2)
    monkeypatch.setattr(data_loader, "_VOXELS_AT_ONCE", 1)
    result = alone.generate_batch(1, 2)
    assert torch.equal(result["data"], expected["data"])
    assert all(torch.equal(one, other) for one, other in zip(result["target"], expected["target"], strict=True))


def test_a_callable_of_the_users_fails_with_the_name_of_its_case_alone() -> None:
    transforms = ComposeTransforms([MirrorTransform((0,)), Misbehaving("raises")])
    loader = make_loader((8, 8), (8, 8), transforms=transforms, batch_size=4)
    with pytest.raises(ZeroDivisionError):
        loader.generate_batch(0, 0)
    assert loader.current_key in ("a", "b", "c")


def test_deep_supervision_regions_and_cascade() -> None:
    transforms = get_validation_transforms([[1, 1, 1], [0.5, 0.5, 0.5]], True, [1, 2], [(1, 2), 2], 3)
    dataset = MemoryDataset(["a"], cascade=True)
    batch = make_loader((8, 8, 8), (8, 8, 8), dataset=dataset, transforms=transforms).generate_batch(0, 0)
    assert batch["data"].shape == (2, 4, 8, 8, 8)
    assert [tuple(level.shape) for level in batch["target"]] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]
    assert all(level.dtype == torch.bool for level in batch["target"])


def test_properties_are_read_only_when_needed() -> None:
    class Counting(MemoryDataset):
        read = 0

        def load_arrays(self, identifier: str) -> tuple[Any, ...]:
            return super().load_case(identifier)[:3]

        def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
            self.read += 1
            return super().load_case(identifier)

    dataset = Counting(["a"])
    loader = make_loader((8, 8, 8), (8, 8, 8), dataset=dataset, oversample_foreground_percent=0.5)
    for index in range(3):
        loader.generate_batch(0, index)
    assert dataset.read == 1


def test_sampling_probabilities_and_pad_sides() -> None:
    loader = make_loader((8, 8, 8), (8, 8, 8), sampling_probabilities=[0.0, 0.25, 0.75], pad_sides=(4, 0, 0), seed=1)
    drawn = [key for index in range(200) for key in loader.case_ids(0, index)]
    assert set(drawn) == {"b", "c"}
    assert 0.65 < drawn.count("c") / len(drawn) < 0.85
    firsts = np.array([loader.get_bbox((18, 20, 22), False, None)[0] for _ in range(300)])
    assert firsts.min(0).tolist() == [-2, 0, 0]
    assert firsts.max(0).tolist() == [12, 12, 14]
    with pytest.raises(ArgumentError, match="2 sampling_probabilities.*3 cases"):
        make_loader((8, 8, 8), (8, 8, 8), sampling_probabilities=[0.5, 0.5])


def test_next_draws_anew_from_numpys_global_generator() -> None:
    def batches(number: int, seed: int, thread: int | None = None) -> list[torch.Tensor]:
        np.random.seed(seed)
        if thread is not None:
            loader.set_thread_id(thread)
        return [batch["data"] for batch in itertools.islice(loader, number)]

    loader = default_loader()
    first, second = batches(2, 5)
    assert not torch.equal(first, second)
    again = batches(2, 5, thread=0)  # a worker has set numpy's seed before
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, batches(1, 6, thread=1)[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # their thread's end
def test_processes_of_batchgenerators_do_not_repeat_each_other() -> None:
    loader = default_loader()
    next(loader)  # upstream's trainers draw a batch before the workers are forked
    augmenter = NonDetMultiThreadedAugmenter(loader, None, 3, num_cached=3, wait_time=0.002)
    try:
        drawn = [next(augmenter)["data"] for _ in range(9)]
    finally:
        augmenter._finish()
    assert len({float(data.sum()) for data in drawn}) == 9
