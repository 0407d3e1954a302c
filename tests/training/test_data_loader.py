"""Golden facts of spec 02, 3.4-3.6; batches depend on (seed, epoch, index) alone, however they are made."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunet_lite.exceptions import ArgumentError, WorkerError
from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.data_augmentation.augmentation_geometry import configure_augmentation
from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms, get_validation_transforms
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms
from nnunet_lite.training.data_loader import is_forced_foreground, nnUNetDataLoader, patch_bounds


class Labels(NamedTuple):
    """As much of a label manager as the loader needs."""

    has_ignore_label: bool = False
    all_labels: tuple[int, ...] = (0, 1, 2)


class MemoryDataset:
    """A few small random cases; a case named "broken" cannot be read, one named "deadly" ends its process."""

    def __init__(self, identifiers: list[str], shape: tuple[int, ...] = (18, 20, 22), cascade: bool = False) -> None:
        self.identifiers = identifiers
        self.shape = shape
        self.cascade = cascade

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        if identifier == "broken":
            raise ValueError("not a blosc2 file")
        if identifier == "deadly" and os.environ.get("IN_A_TEST") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        rng = np.random.default_rng(sum(identifier.encode()))
        data = rng.standard_normal((2, *self.shape), dtype=np.float32)
        seg = rng.integers(-1, 3, (1, *self.shape)).astype(np.int16)
        previous = rng.integers(0, 3, self.shape).astype(np.uint8) if self.cascade else None
        return data, seg, previous, {"class_locations": {1: np.argwhere(seg == 1)[:50], 2: []}}


class LegacyRandom(np.random.RandomState):
    """Upstream's generator with the method names of today."""

    def integers(self, low: int, high: int | None = None, size: int | None = None) -> Any:
        return self.randint(low, high, size)


def make_loader(patch: tuple[int, ...], final: tuple[int, ...], **options: Any) -> nnUNetDataLoader:
    dataset = options.pop("dataset", None) or MemoryDataset(["a", "b", "c"])
    return nnUNetDataLoader(dataset, options.pop("batch_size", 2), patch, final, Labels(), **options)


def default_loader(seed: int = 7, identifiers: tuple[str, ...] = ("a", "b", "c"), batch_size: int = 2) -> Any:
    final = (12, 14, 12)
    geometry = configure_augmentation(final)
    transforms = get_training_transforms(
        final, geometry.rotation_for_DA, [[1, 1, 1], [0.5, 0.5, 0.5]], geometry.mirror_axes, False, [True, False]
    )
    return make_loader(
        geometry.initial_patch_size,
        final,
        dataset=MemoryDataset(list(identifiers)),
        batch_size=batch_size,
        oversample_foreground_percent=0.33,
        transforms=transforms,
        seed=seed,
    )


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


def test_deep_supervision_regions_and_cascade() -> None:
    transforms = get_validation_transforms([[1, 1, 1], [0.5, 0.5, 0.5]], True, [1, 2], [(1, 2), 2], 3)
    dataset = MemoryDataset(["a"], cascade=True)
    batch = make_loader((8, 8, 8), (8, 8, 8), dataset=dataset, transforms=transforms).generate_batch(0, 0)
    assert batch["data"].shape == (2, 4, 8, 8, 8)
    assert [tuple(level.shape) for level in batch["target"]] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]
    assert all(level.dtype == torch.bool for level in batch["target"])


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return (
        first["keys"] == second["keys"]
        and torch.equal(first["data"], second["data"])
        and all(torch.equal(a, b) for a, b in zip(first["target"], second["target"], strict=True))
    )


def test_batches_do_not_depend_on_how_they_are_made() -> None:
    loader = default_loader()
    expected = [loader.generate_batch(n // 3, n % 3) for n in range(8)]
    assert not torch.equal(expected[0]["data"], expected[3]["data"])
    assert not equal(expected[0], default_loader(seed=8).generate_batch(0, 0))
    for options in ({"num_workers": 2, "prefetch": 3}, {"num_workers": 2, "threads": True}, {}):
        with BatchIterator(default_loader(), batches_per_epoch=3, **options) as batches:
            assert all(equal(next(batches), batch) for batch in expected)
    with BatchIterator(default_loader(), 1, batches_per_epoch=3, start=(1, 2)) as batches:
        assert equal(next(batches), expected[5])


def test_large_batches_go_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_lite.training.worker_processes.slot_bytes", lambda plan: 64)
    with BatchIterator(default_loader(), 1) as batches:
        assert equal(next(batches), default_loader().generate_batch(0, 0))


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"num_workers": 1, "threads": True}])
def test_a_broken_case_is_named(options: dict[str, Any]) -> None:
    with (
        BatchIterator(default_loader(identifiers=("broken",)), **options) as batches,
        pytest.raises(WorkerError, match=r"cases broken, broken.*broken: ValueError: not a blosc2 file"),
    ):
        next(batches)


def test_a_killed_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IN_A_TEST", str(os.getpid()))
    with (
        BatchIterator(default_loader(identifiers=("deadly",)), 2) as batches,
        pytest.raises(WorkerError, match=r"cases deadly, deadly.*SIGKILL.*nnUNet_n_proc_DA"),
    ):
        next(batches)


def test_closing_ends_the_children() -> None:
    batches = BatchIterator(default_loader(), 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    batches.close()
    assert not multiprocessing.active_children()


def test_signals_to_all_processes_are_left_to_the_parent() -> None:
    with BatchIterator(default_loader(), 1) as batches:
        next(batches)
        (process,) = multiprocessing.active_children()
        process.terminate()
        expected = default_loader()
        assert all(equal(next(batches), expected.generate_batch(0, n)) for n in range(1, 5))


def test_forgotten_iterators_leave_no_processes() -> None:
    batches = BatchIterator(default_loader(), 1)
    assert multiprocessing.active_children()
    del batches
    assert not multiprocessing.active_children()


class Foreign:
    """A transform of a module that only this process has."""

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image + 1, "segmentation": segmentation}


def test_modules_a_worker_cannot_import(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    module: Any = types.ModuleType("only_here")
    monkeypatch.setattr(Foreign, "__module__", "only_here")
    module.Foreign = Foreign
    monkeypatch.setitem(sys.modules, "only_here", module)
    loader = make_loader((8, 8, 8), (8, 8, 8), transforms=Foreign(), seed=1)
    expected = loader.generate_batch(0, 0)
    with BatchIterator(loader, 2) as batches:
        assert torch.equal(next(batches)["data"], expected["data"])
        next(batches)
    assert "No module named 'only_here'" in caplog.text


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


def test_transforms_that_cannot_be_pickled_run_in_threads(caplog: pytest.LogCaptureFixture) -> None:
    def add_noise(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image + torch.randn(image.shape) + float(np.random.rand()), "segmentation": segmentation}

    def loader() -> nnUNetDataLoader:
        transforms = ComposeTransforms([*get_validation_transforms(None).transforms, add_noise])
        return make_loader((8, 8, 8), (8, 8, 8), transforms=transforms, seed=1)

    with BatchIterator(loader(), 1) as batches:
        first = next(batches)
    assert torch.equal(first["data"], loader().generate_batch(0, 0)["data"])
    assert caplog.text.count("runs in threads") == 1


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


def test_per_sample_callables() -> None:
    def double(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image * 2, "segmentation": segmentation}

    plain = make_loader((8, 8, 8), (8, 8, 8), transforms=None, seed=1).generate_batch(0, 0)
    doubled = make_loader((8, 8, 8), (8, 8, 8), transforms=double, seed=1).generate_batch(0, 0)
    assert torch.equal(doubled["data"], plain["data"] * 2)
