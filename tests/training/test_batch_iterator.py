"""Batches are the same however they are made; workers that fail, end, hang or stand still."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_training
from helpers.loaders import Misbehaving, default_loader, make_loader, misbehaving_loader, validation_loader

from nnunet_lite.exceptions import WorkerError
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training import worker_processes
from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.data_augmentation.pipelines import get_validation_transforms
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms
from nnunet_lite.training.data_loader import nnUNetDataLoader
from nnunet_lite.training.data_watch import DataWatch, describe_wait


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return (
        first["keys"] == second["keys"]
        and torch.equal(first["data"], second["data"])
        and all(torch.equal(a, b) for a, b in zip(first["target"], second["target"], strict=True))
    )


WAYS = [{}, {"num_workers": 2, "prefetch": 3}, {"num_workers": 4, "threads": True}, {"num_workers": 1}]


@pytest.mark.parametrize("options", [*WAYS, pytest.param({"num_workers": 12}, marks=pytest.mark.slow)])
def test_batches_do_not_depend_on_how_they_are_made(options: dict[str, Any]) -> None:
    loader = default_loader()
    expected = [loader.generate_batch(n // 3, n % 3) for n in range(8)]
    assert not torch.equal(expected[0]["data"], expected[3]["data"])
    assert not equal(expected[0], default_loader(seed=8).generate_batch(0, 0))
    with BatchIterator(default_loader(), batches_per_epoch=3, **options) as batches:
        assert all(equal(next(batches), batch) for batch in expected)
    if options.get("threads", True):  # a training that goes on in the middle of an epoch
        with BatchIterator(default_loader(), batches_per_epoch=3, start=(1, 2), **options) as batches:
            assert all(equal(next(batches), batch) for batch in expected[5:])


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 12, "threads": True}, {}])
def test_validation_batches_do_not_depend_on_it_either(options: dict[str, Any]) -> None:
    loader = validation_loader()
    with BatchIterator(validation_loader(), batches_per_epoch=2, **options) as batches:
        assert all(equal(next(batches), loader.generate_batch(n // 2, n % 2)) for n in range(4))


def test_transforms_of_a_user_draw_the_same_in_threads() -> None:
    loader = misbehaving_loader("noise")
    expected = [loader.generate_batch(0, n)["data"] for n in range(12)]
    before = torch.get_rng_state()
    with BatchIterator(misbehaving_loader("noise"), 6, threads=True) as batches:
        assert all(torch.equal(next(batches)["data"], data) for data in expected)
    assert torch.equal(torch.get_rng_state(), before)  # dropout of the network draws from it


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


def test_per_sample_callables() -> None:
    def double(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image * 2, "segmentation": segmentation}

    plain = make_loader((8, 8, 8), (8, 8, 8), transforms=None, seed=1).generate_batch(0, 0)
    doubled = make_loader((8, 8, 8), (8, 8, 8), transforms=double, seed=1).generate_batch(0, 0)
    assert torch.equal(doubled["data"], plain["data"] * 2)


@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "threads": True}, {"num_workers": 1}])
@pytest.mark.parametrize(
    ("how", "cause"), [("raises", "ZeroDivisionError: my own mistake"), ("exits", "SystemExit: 3")]
)
def test_a_transform_that_fails(options: dict[str, Any], how: str, cause: str) -> None:
    with (
        BatchIterator(misbehaving_loader(how), **options) as batches,
        pytest.raises(WorkerError, match=rf"Batch 0 of epoch 0 \(cases .*{cause}.*if a transform of yours fails"),
    ):
        next(batches)


def test_a_transform_that_ends_its_process() -> None:
    with (
        BatchIterator(misbehaving_loader("ends"), 1) as batches,
        pytest.raises(WorkerError, match=r"ended \(exit code 0; it was transforming [abc] and held"),
    ):
        next(batches)


def test_a_worker_that_dies_idle_is_noticed_with_the_next_batch() -> None:
    with BatchIterator(default_loader(), 2, prefetch=4) as batches:
        next(batches)
        victim = multiprocessing.active_children()[0]
        wait_until(lambda: "waiting for work" in batches._maker.doing(1) + batches._maker.doing(2))
        victim.kill()
        victim.join()
        with pytest.raises(WorkerError, match="SIGKILL"):
            batches.check_workers()
        with pytest.raises(WorkerError, match="SIGKILL"):
            next(batches)


def wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("options", [{"num_workers": 1}, {"num_workers": 1, "threads": True}])
def test_a_transform_that_never_returns_is_named_and_the_wait_can_be_ended(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_lite.training.batch_makers._END", 0.1)
    said: list[str] = []
    watch = DataWatch(first_word=0.2)
    with BatchIterator(
        misbehaving_loader("hangs"), stop=lambda: any("transforming" in text for text in said), **options
    ) as batches:
        with (
            watch.waiting(lambda: describe_wait(batches), said.append),
            pytest.raises(WorkerError, match=r"Batch 0 .* was not waited for"),
        ):
            next(batches)
        assert batches.stops_waiting
        threads = list(getattr(batches._maker, "_threads", []))
    monkeypatch.setattr(Misbehaving, "released", True)  # what was left behind must not outlive the test
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert said[-1].startswith("Waiting for data for ")
    assert "Batch 0 of epoch 0 (cases " in said[-1] and "Ctrl-C (or SIGTERM) saves and ends" in said[-1]


def test_a_stopped_process_is_named() -> None:
    with BatchIterator(default_loader(), 1) as batches:
        next(batches)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGSTOP)
        wait_until(lambda: "it is stopped (by SIGSTOP, SIGTSTP or a debugger; kill -CONT" in describe_wait(batches))
        assert f"worker 1 of 1 (process {process.pid}) is " in describe_wait(batches)


def test_a_process_that_cannot_be_ended_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_processes, "_END", 0.1)
    batches = BatchIterator(default_loader(), 1)
    (process,) = multiprocessing.active_children()
    kill = process.kill
    monkeypatch.setattr(process, "kill", lambda: os.kill(process.pid or 0, signal.SIGSTOP))
    batches.close()
    assert f"Data worker {process.pid} cannot be ended (it is stopped" in caplog.text
    assert process not in multiprocessing.active_children()
    kill()
    process.join()


def test_what_a_thread_does() -> None:
    before = threading.active_count()
    batches = BatchIterator(misbehaving_loader("noise"), 1, threads=True)
    assert threading.active_count() == before + 1
    assert "not begun yet" in batches._maker.doing(100)
    batches.close()
    assert threading.active_count() == before


def test_without_anonymous_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")  # of the parent only: what it sends must do for both
    slots = worker_processes.Slots(2, 4096, 1)
    packed = slots.pack(1, {"data": torch.arange(9.0), "keys": ["a"]})
    assert packed.arrays is None and packed.spans[0][0] == 4096
    assert torch.equal(slots.unpack(1, packed)["data"], torch.arange(9.0))
    slots.write_note(0, "reading a")
    assert slots.read_note(0)[0] == "reading a"
    slots.memory.close()
    assert slots.read_note(0) == ("", 0.0)


def test_large_arrays_are_unpacked_into_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[int] = []
    empty = torch.empty

    def allocate(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        locked.append(size)
        return empty(size, dtype=dtype)  # this machine may have no GPU to lock pages for

    monkeypatch.setattr(torch, "empty", allocate)
    slots = worker_processes.Slots(1, 2**20, 1)
    value = {"data": torch.arange(2.0**15), "matrix": np.eye(3)}
    unpacked = slots.unpack(0, slots.pack(0, value), pin=True)
    assert torch.equal(unpacked["data"], value["data"]) and np.array_equal(unpacked["matrix"], np.eye(3))
    assert locked == [2**17]
    unpacked["data"][0] = 5  # a copy of one's own
    assert float(slots.unpack(0, slots.pack(0, value))["data"][0]) == 0


def test_too_little_memory_for_the_workers_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_processes, "available_memory", lambda: 2**29)
    with BatchIterator(default_loader(), 3, prefetch=3):
        assert "3 data workers may need" in caplog.text and "set nnUNet_n_proc_DA=2" in caplog.text


class Damaged:
    """Preprocessed cases, one of which is damaged while the training runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = tiny_training.write_dataset(folder) / "nnUNetPlans_3d"

    def loader(self) -> nnUNetDataLoader:
        dataset = nnUNetDatasetBlosc2(self.folder, ["case_0"])
        return make_loader((8, 8, 8), (8, 8, 8), dataset=dataset, oversample_foreground_percent=1.0, seed=1)

    def damage(self, name: str, how: str) -> None:
        file = self.folder / name
        content = file.read_bytes()
        if how == "missing":
            file.unlink()
        elif how == "flipped":
            file.write_bytes(content[:200] + bytes(255 - byte for byte in content[200:]))
        else:
            file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("case_0.b2nd", "missing", r"case_0\.b2nd is missing in .*nnUNetPlans_3d; run nnUNetv2_preprocess.* again"),
        ("case_0_seg.b2nd", "truncated", r"case_0_seg\.b2nd is damaged .*delete it and run nnUNetv2_preprocess"),
        ("case_0.b2nd", "flipped", r"case_0\.b2nd is damaged .*run nnUNetv2_preprocess.* again"),
        ("case_0.pkl", "truncated", r"case_0\.pkl is no readable properties file.*delete it"),
        ("case_0.pkl", "missing", r"case_0\.pkl is missing"),
    ],
)
def test_files_that_are_damaged_before_they_are_opened(tmp_path: Path, name: str, how: str, message: str) -> None:
    damaged = Damaged(tmp_path)
    loader = damaged.loader()
    with BatchIterator(loader) as batches:
        damaged.damage(name, how)
        with pytest.raises(WorkerError, match=rf"\(cases case_0, case_0\) could not be made: case_0: .*{message}"):
            next(batches)
