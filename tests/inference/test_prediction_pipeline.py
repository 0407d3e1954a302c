"""The pipeline: order, one process or several, shared memory, failures of every kind."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dying_export import die_once_then_export, fail_to_export
from helpers.sessions import left_over

from nnunet_lite.exceptions import DatasetError, OutOfMemory, StorageError, WorkerError, nnUNetError
from nnunet_lite.inference import case_resources, data_iterators, export_queue, prediction_pipeline
from nnunet_lite.inference.case_resources import Demand
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.utilities.files import load_json, save_json
from nnunet_lite.utilities.memory_budget import MemoryBudget

sitk = pytest.importorskip("SimpleITK")
TROUBLED = Path(__file__).parents[1] / "helpers" / "inference_preprocessors"


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder during a test; large arrays are those above a few bytes."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(data_iterators, "_LARGE", 16)
    return folder


@pytest.fixture
def with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started however little there is to do, and however little memory."""
    monkeypatch.setattr(case_resources, "_WORKER_START", {"preprocessing": -1.0, "export": -1.0})
    monkeypatch.setattr(case_resources, "_SHARE_OF_PROCESSES", math.inf)


@pytest.fixture
def troubled(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model with the preprocessor that TROUBLE tells what to do."""
    plans = load_json(model / "plans.json")
    for configuration in plans["configurations"].values():
        configuration["preprocessor_name"] = "TroubledPreprocessor"
    save_json(plans, model / "plans.json")
    monkeypatch.setenv("nnUNet_extTrainer", str(TROUBLED))
    return model


def predictor_of(model: Path, **options: Any) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False, use_mirroring=False, **options)
    predictor.initialize_from_trained_model_folder(model, 0)
    return predictor


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if "args" not in file.name}


def test_one_process_and_several_write_the_same_bytes(
    model: Path, images: Path, tmp_path: Path, exchange: Path, with_workers: None
) -> None:
    predictor = predictor_of(model)
    for name, processes in (("one", (0, 0)), ("several", (2, 1))):
        predictor.predict_from_files(images, tmp_path / name, True, True, *processes)
        assert contents(tmp_path / name) == contents(tmp_path / "one")
        assert not list(exchange.iterdir()), "nothing is left of the exchange"
    assert len(contents(tmp_path / "one")) == 3 * 3 + 2


def test_one_process_starts_nothing_and_writes_nothing_besides(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of(model)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("no processes, shared memory or temporary folders here")

    for module, name in ((tempfile, "mkdtemp"), (tempfile, "mkstemp"), (multiprocessing, "Pipe")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr("multiprocessing.context.SpawnContext.Process", refuse)
    monkeypatch.setattr("multiprocessing.shared_memory.SharedMemory", refuse)
    threads = threading.active_count()
    assert predictor.predict_from_files(images, tmp_path / "out", False, True, 0, 0) == [None] * 3
    assert threading.active_count() == threads


class Watched(MemoryBudget):
    """Remembers how much was taken at most, and how many worked at once."""

    most, together = 0, 0

    def _start(self, size: int) -> None:
        super()._start(size)
        Watched.most = max(Watched.most, self.taken)
        Watched.together = max(Watched.together, self._working)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    Watched.most = Watched.together = 0
    monkeypatch.setattr(prediction_pipeline, "MemoryBudget", Watched)
    monkeypatch.setattr(prediction_pipeline, "rss", lambda: 0)
    return Watched


@pytest.mark.parametrize(("limit", "together", "processes"), [(100, 1, (2, 0)), (250, 2, (2, 1))])
def test_the_limit_holds_over_all_steps(
    model: Path,
    images: Path,
    tmp_path: Path,
    watched: type[Watched],
    with_workers: None,
    exchange: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    together: int,
    processes: tuple[int, int],
) -> None:
    monkeypatch.setattr(prediction_pipeline, "demand_of_case", lambda *_: Demand(100, 5, 100, 5, 100))
    predictor_of(model, max_ram=limit).predict_from_files(images, tmp_path / "out", False, True, *processes)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3
    small = 3 * 5  # images and logits that wait do not keep the step from running that they wait for
    assert watched.most <= limit + small and watched.together == together


def test_processes_that_would_take_the_memory_of_the_cases_are_not_started(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(case_resources, "_WORKER_START", {"preprocessing": -1.0, "export": -1.0})
    monkeypatch.setattr("multiprocessing.context.SpawnContext.Process", None)
    monkeypatch.setattr(prediction_pipeline, "rss", lambda: 0)
    caplog.set_level(logging.INFO)
    predictor = predictor_of(model, max_ram=300 * 2**20)
    assert predictor.predict_from_files(images, tmp_path / "out", False, True, 2, 1) == [None] * 3
    assert "-npp 0 -nps 0 instead of -npp 2 -nps 1: each process takes memory, of which 300 MiB" in caplog.text


def test_a_case_above_the_limit_runs_alone_with_a_warning(
    model: Path, images: Path, watched: type[Watched], with_workers: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        results = predictor_of(model, max_ram=2**20).predict_from_files(images, None, False, True, 1, 0)
    assert results is not None and len(results) == 3
    assert watched.together == 1
    assert "3 of 3 cases need more memory by estimate than the limit of 1 MiB and run alone: a (" in caplog.text


@pytest.mark.parametrize(
    ("trouble", "processes", "expected"),
    [
        ("die", 1, "its process died twice, the second time alone (SIGKILL"),
        ("memory", 1, "memory ran out (MemoryError"),
        ("memory", 0, "memory ran out (MemoryError"),
        ("odd", 1, "what its process answered cannot be read"),
        ("odd", 0, "ErrorThatDoesNotTravel: code 3"),
    ],
)
def test_a_case_that_fails_does_not_stop_the_others(
    troubled: Path,
    images: Path,
    tmp_path: Path,
    with_workers: None,
    exchange: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    processes: int,
    expected: str,
) -> None:
    monkeypatch.setenv("TROUBLE", f"b={trouble}")
    predictor, out = predictor_of(troubled), tmp_path / "out"
    with pytest.raises(nnUNetError) as caught:
        predictor.predict_from_files(images, out, False, True, processes, 0)
    assert str(caught.value).startswith(f"1 of 3 cases failed: b: {expected}")
    assert "The others are predicted; --continue_prediction" in str(caught.value)
    assert sorted(file.name for file in out.glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]
    assert not list(exchange.iterdir())
    monkeypatch.setenv("TROUBLE", "")
    assert predictor.predict_from_files(images, out, False, False, 0, 0) == [None]


def test_memory_that_ends_in_the_network_stops_that_case_only(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of(model)
    forward = predictor.network.forward
    calls: list[int] = []

    def full(tiles: torch.Tensor) -> Any:
        calls.append(1)
        if len(calls) <= 4:  # 8 images in a pass, 4, 2, 1
            raise MemoryError
        return forward(tiles)

    monkeypatch.setattr(predictor.network, "forward", full)
    with pytest.raises(OutOfMemory, match=r"1 of 3 cases failed: a: the memory of cpu does not suffice"):
        predictor.predict_from_files(images, tmp_path / "out", False, True, 0, 0)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_a_full_disk_stops_early_and_says_how_far_it_came(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of(model)
    export, exported = export_queue.export_case, []

    def full(*arguments: Any) -> Any:
        exported.append(arguments)
        if len(exported) == 2:
            raise StorageError("No space left on the disk")
        return export(*arguments)

    monkeypatch.setattr(export_queue, "export_case", full)
    with pytest.raises(StorageError, match=r"^No space left on the disk \(1 of 3 cases are predicted; --continue"):
        predictor.predict_from_files(images, tmp_path / "out", False, True, 0, 0)
    assert [file.name for file in (tmp_path / "out").glob("*.nii.gz")] == ["a.nii.gz"] and len(exported) == 2


def test_a_stream_of_preprocessed_cases(model: Path, tmp_path: Path, with_workers: None, exchange: Path) -> None:
    predictor = predictor_of(model)
    image = np.random.default_rng(0).normal(size=(1, 8, 9, 10)).astype(np.float32)
    pairs = [predictor.get_data_iterator_from_raw_npy_data([image] * 2, None, [{"spacing": [1, 1, 1]}] * 2, None, n)
             for n in (0, 1)]  # fmt: skip
    here, there = (predictor.predict_from_data_iterator(items, False, n) for n, items in enumerate(pairs))
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True)) and len(here) == 2


def test_an_export_whose_process_is_killed_is_done_again(
    model: Path, images: Path, tmp_path: Path, with_workers: None, exchange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits that lie in a file are still there for the second process."""
    predictor, out = predictor_of(model), tmp_path / "out"
    predictor.predict_from_files(images, tmp_path / "expected", False, True, 0, 0)
    monkeypatch.setattr(export_queue, "export_case", die_once_then_export)
    predictor.predict_from_files(images, out, False, True, 0, 1)
    assert len(list(out.glob("*.died"))) == 3 and not list(exchange.iterdir())
    for file in (tmp_path / "expected").glob("*.nii.gz"):
        assert (out / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("processes", [0, 1])
def test_an_image_is_gone_when_the_next_one_is_waited_for(
    model: Path, images: Path, with_workers: None, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    one, alive, seen = prediction_pipeline.PredictionPipeline._one, [], []

    def watched(self: Any, name: str, item: Any, *others: Any) -> None:
        alive.append(weakref.ref(item["data"]))
        one(self, name, item, *others)

    def watched_cases(*arguments: Any) -> Any:
        stream = data_iterators.preprocessed_cases(*arguments)
        while True:
            seen.append(any(image() is not None for image in alive))
            try:
                case = next(stream)
            except StopIteration:
                return
            seen.append(any(image() is not None for image in alive))  # while it was made
            yield case
            del case

    monkeypatch.setattr(prediction_pipeline.PredictionPipeline, "_one", watched)
    monkeypatch.setattr(prediction_pipeline, "preprocessed_cases", watched_cases)
    predictor_of(model).predict_from_files(images, None, False, True, processes, 0)
    assert len(alive) == 3 and not any(seen)


def test_images_of_unknown_size_are_worth_processes(model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the user's that cannot tell sizes does not put an end to the background work."""
    started: list[int] = []
    pool = prediction_pipeline.WorkerPool

    def counted(processes: int, **options: Any) -> Any:
        started.append(processes)
        return pool(0, **options)

    monkeypatch.setattr(prediction_pipeline, "WorkerPool", counted)
    predictor = predictor_of(model)
    predictor.predict_from_files(images, None, False, True, 2, 1)
    assert started == [0, 0]
    monkeypatch.setattr(prediction_pipeline, "size_of_case", lambda *_: None)
    predictor.predict_from_files(images, None, False, True, 2, 1)
    assert started[2:] == [2, 1]


def test_an_export_that_fails_here_keeps_no_logits(model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits: list[Any] = []

    def fail(values: Any, *arguments: Any) -> None:
        assert [kept for kept in logits if kept() is not None] == []
        logits.append(weakref.ref(values))
        raise ValueError("no")

    monkeypatch.setattr(export_queue, "export_case", fail)
    with pytest.raises(WorkerError, match="3 of 3 cases failed"):
        predictor_of(model).predict_from_files(images, None, False, True, 0, 0)
    assert len(logits) == 3


COMMAND = """
import sys, tempfile
tempfile.tempdir = sys.argv.pop(1)
from nnunet_lite.inference import case_resources
case_resources._WORKER_START = {"preprocessing": -1.0, "export": -1.0}
from nnunet_lite.cli.inference import predict_from_modelfolder_entry
if __name__ == "__main__":
    sys.exit(predict_from_modelfolder_entry())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as only Linux shows them")
@pytest.mark.parametrize(
    ("number", "group", "code", "said"),
    [
        (signal.SIGINT, True, 130, "Finished cases are kept; --continue_prediction skips them"),
        (signal.SIGTERM, False, 143, ""),
        (signal.SIGKILL, False, -9, ""),
    ],
    ids=["Ctrl-C", "SIGTERM", "kill -9"],
)
def test_a_stopped_command_ends_all_its_processes(
    troubled: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: Path,
    number: int, group: bool, code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TROUBLE", "b=sleep")
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    out = tmp_path / "out"
    flags = ["-i", images, "-o", out, "-m", troubled, "-f", 0, "-device", "cpu", "--disable_tta", "-npp", 1, "-nps", 1]
    process = subprocess.Popen(
        [sys.executable, str(script), str(exchange), *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while "sleeps" not in (line := process.stdout.readline()):
            assert line, "it ended before the second case"
        while not (out / "a.nii.gz").exists():
            time.sleep(0.05)
        (os.killpg if group else os.kill)(process.pid, number)
        errors = process.communicate(timeout=30)[1]
    finally:
        left = left_over(process.pid)
    assert (process.returncode, left) == (code, [])
    assert said in errors and "Traceback" not in errors
    assert sorted(file.name for file in out.iterdir()) == [
        "a.nii.gz", "dataset.json", "plans.json", "predict_from_raw_data_args.json"
    ]  # fmt: skip
    if number != signal.SIGKILL:
        assert not list(exchange.iterdir())
    monkeypatch.setenv("TROUBLE", "")
    predictor_of(troubled).predict_from_files(images, out, False, False, 0, 0)
    assert len(list(out.glob("*.nii.gz"))) == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_failures_are_said_at_once_and_when_somebody_stops(
    model: Path, caplog: pytest.LogCaptureFixture, stop: type[BaseException]
) -> None:
    def stream() -> Any:
        yield "a", DatasetError("a: unreadable")
        assert caplog.messages[-1] == "a failed: unreadable"
        raise stop

    with pytest.raises(stop) as stopped:
        predictor_of(model)._pipeline(False, 0, 0).run_stream(stream())
    assert vars(stopped.value)["__notes__"] == ["Stopped; 1 case had failed: a (unreadable)"]


def preprocessed_items(predictor: nnUNetPredictor, count: int) -> list[dict[str, Any]]:
    image = np.random.default_rng(0).normal(size=(1, 8, 9, 10)).astype(np.float32)
    properties = [{"spacing": [1, 1, 1]}] * count
    return list(predictor.get_data_iterator_from_raw_npy_data([image] * count, None, properties, None, 0))


def test_the_limit_holds_for_a_stream_of_preprocessed_cases(
    model: Path, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    hold = Watched.hold
    monkeypatch.setattr(Watched, "hold", lambda self, size: held.append(size) or hold(self, size))
    predictor = predictor_of(model, max_ram=2**40)
    items = preprocessed_items(predictor, 3)
    voxels, heads = 8 * 9 * 10, 3
    predictor.predict_from_data_iterator(iter(items), False, 1)
    assert held == [4 * voxels + 2 * heads * voxels + 4 * voxels] * 3  # image, sums in half precision, their weights
    assert Watched.most > 2**28, "an export worker, by estimate"
    free = Watched.together
    Watched.together = 0
    predictor_of(model, max_ram=2**20).predict_from_data_iterator(iter(items), False, 1)
    assert Watched.together == 1 <= free, "export and network one after the other"


def test_an_iterator_of_arrays_obeys_the_limit(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    original = data_iterators.preprocessed_cases

    def watch(cases: Any, demands: Any, *others: Any) -> Any:
        given.extend(demands)
        return original(cases, demands, *others)

    monkeypatch.setattr("nnunet_lite.inference.predict_from_raw_data.preprocessed_cases", watch)
    preprocessed_items(predictor_of(model, max_ram=2**20), 2)
    assert len(given) == 2 and all(demand.preprocessing > 4 * 8 * 9 * 10 for demand in given)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("verbose", [True, False])
def test_where_an_export_failed_is_told_if_one_asks(
    model: Path, images: Path, tmp_path: Path, with_workers: None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, processes: int, verbose: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(export_queue, "export_case", fail_to_export)
    with caplog.at_level(logging.INFO, "nnunet_lite"), pytest.raises(WorkerError, match="3 of 3 cases failed"):
        predictor_of(model, verbose=verbose).predict_from_files(images, tmp_path / "out", False, True, 0, processes)
    assert caplog.text.count('in fail_to_export\n    raise ValueError("no such thing")') == (3 if verbose else 0)
    assert ("Traceback" in caplog.text) is verbose
