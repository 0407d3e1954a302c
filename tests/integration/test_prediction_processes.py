"""Predictions whose processes are killed, stopped or short of something: said in a line, never a hang."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.prediction_server import CANNOT_MOUNT, PredictionServer, Run
from helpers.random_faults import CASES, Bench

from nnunet_lite.utilities.processes import is_stopped

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
LIMIT = 120  # seconds; a run takes a few
LABELS = {f"{case}.nii.gz" for case in CASES}
MIB = 2**20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with PredictionServer() as server:
        yield Bench(tmp_path_factory.mktemp("prediction_processes"), server)


class Place:
    """Starts predictions of the bench's images into a folder of the test's own."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder, self.output = bench, folder, folder / "out"

    def start(self, npp: int, nps: int, *flags: object, **surroundings: Any) -> Run:
        arguments = self.bench.arguments(self.bench.folder, self.output, npp, nps)
        return self.bench.server.start(self.folder, *arguments, *flags, **surroundings)

    def labels(self) -> set[str]:
        """Label maps there are, all of them equal to the fault-free ones; nothing is half-written."""
        assert [file for file in os.listdir(self.output) if file.startswith(".")] == []
        found = {file for file in self.output.iterdir() if file.name.endswith(".nii.gz")}
        for file in found:
            self.bench._equal(file, "")
        return {file.name for file in found}


@pytest.fixture
def place(bench: Bench, tmp_path: Path) -> Place:
    return Place(bench, tmp_path)


def workers(run: Run) -> list[int]:
    """Background processes that work, not multiprocessing's own helper."""
    found = []
    for pid in run.processes():
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def first_worker(run: Run) -> int:
    deadline = time.monotonic() + LIMIT
    while not (found := workers(run)):
        assert time.monotonic() < deadline and run.processes(), run.errors
        time.sleep(0.005)
    return found[0]


@pytest.mark.parametrize(("npp", "nps"), [(1, 0), (0, 1)], ids=["preprocessing", "export"])
def test_a_killed_worker_costs_nothing(place: Place, npp: int, nps: int) -> None:
    run = place.start(npp, nps)
    os.kill(first_worker(run), signal.SIGKILL)
    assert run.wait(LIMIT) == 0, run.errors
    assert "Traceback" not in run.errors
    assert place.labels() == LABELS
    assert run.children_left(10) == []


@pytest.mark.slow
@pytest.mark.parametrize(("npp", "nps"), [(1, 0), (0, 1)], ids=["preprocessing", "export"])
def test_cases_whose_workers_always_die_are_listed(place: Place, npp: int, nps: int) -> None:
    run = place.start(npp, nps)
    deadline = time.monotonic() + LIMIT
    while run.processes() and time.monotonic() < deadline:
        for pid in workers(run):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    assert run.wait(LIMIT) == 2, run.errors
    assert "3 of 3 cases failed" in run.errors and "Traceback" not in run.errors
    for case in CASES:
        assert run.errors.count(f"  {case}: its process died twice") == 1, run.errors
    assert place.labels() == set()


def stopped_in_the_middle(place: Place, imported: bool) -> Run:
    """A prediction whose command is stopped (SIGSTOP) while it has a worker and before it has written all cases.

    On a busy machine it may be over before it is looked at; then there is another one.

    Args:
        imported: the worker is beyond its start; killed before, Python itself prints how far the worker came.
    """
    for _ in range(20):
        run = place.start(1, 0)
        while run.processes() and not (
            any("numpy" in _maps(pid) for pid in workers(run)) if imported else workers(run)
        ):
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGSTOP)
            while run.processes() and not is_stopped(run.pid):
                time.sleep(0.005)
            if run.processes() and not set(os.listdir(place.output)) >= LABELS:
                return run
            os.kill(run.pid, signal.SIGCONT)
        assert run.wait(LIMIT) == 0, run.errors
        shutil.rmtree(place.output)
    raise AssertionError("never in the middle of a prediction")


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_ended_prediction_leaves_nothing_and_can_be_continued(place: Place, number: int, code: int) -> None:
    run = stopped_in_the_middle(place, number == signal.SIGKILL)
    os.killpg(run.pid, number) if number == signal.SIGINT else os.kill(run.pid, number)
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGCONT)
    assert run.wait(LIMIT) == code, run.errors
    assert run.children_left(10) == []
    assert "Traceback" not in run.errors
    if number != signal.SIGKILL:
        assert "Finished cases are kept; --continue_prediction skips them" in run.errors
    assert place.labels() <= LABELS
    again = place.start(0, 0, "--continue_prediction")
    assert again.wait(LIMIT) == 0, again.errors
    assert place.labels() == LABELS
    assert os.listdir(place.folder / "tmp") == []


@pytest.mark.slow
def test_a_stopped_worker_is_said_and_goes_on(place: Place) -> None:
    run = place.start(1, 0)
    worker = first_worker(run)
    os.kill(worker, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while f"kill -CONT {worker} lets it go on" not in run.errors:
        assert time.monotonic() < deadline, run.errors
        time.sleep(0.1)
    os.kill(worker, signal.SIGCONT)
    assert run.wait(LIMIT) == 0, run.errors
    assert place.labels() == LABELS


@pytest.mark.slow
def test_a_prediction_with_a_stopped_worker_can_be_ended(place: Place) -> None:
    run = place.start(1, 0)
    os.kill(first_worker(run), signal.SIGSTOP)
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(LIMIT) == 143, run.errors
    assert run.children_left(10) == []


# short of something


@pytest.mark.parametrize(("npp", "nps"), [(0, 0), (2, 1)])
def test_hardly_any_shared_memory(place: Place, npp: int, nps: int) -> None:
    run = place.start(npp, nps, shared_memory=MIB)
    code = run.wait(LIMIT)
    if code == CANNOT_MOUNT:
        pytest.skip("mounting a small /dev/shm is not permitted here")
    assert code == 0, run.errors
    assert place.labels() == LABELS


@pytest.mark.parametrize(("npp", "nps"), [(0, 0), (2, 1)])
def test_few_open_files(place: Place, npp: int, nps: int) -> None:
    run = place.start(npp, nps, "--save_probabilities", files=64)
    assert run.wait(LIMIT) == 0, run.errors
    assert place.labels() == LABELS


def test_too_few_open_files_for_workers(place: Place) -> None:
    run = place.start(3, 0, files=16)
    code = run.wait(LIMIT)
    assert "Traceback" not in run.errors, run.errors
    assert code == 0 or (code == 2 and "Too many open files" in run.errors), run.errors
    assert run.children_left(10) == []


def test_a_temporary_folder_that_is_not_there(place: Place) -> None:
    """Another one is found, as Python does it."""
    run = place.start(1, 0, temporary=str(place.folder / "nowhere"))
    assert run.wait(LIMIT) == 0, run.errors
    assert place.labels() == LABELS


@pytest.mark.slow
def test_too_little_memory_is_said_for_each_case(place: Place, bench: Bench) -> None:
    import json

    shutil.copytree(bench.folder / "images", place.folder / "images")
    model = next(path for path in bench.folder.iterdir() if "__" in path.name)
    shutil.copytree(model, place.folder / model.name)
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [160, 160, 160]
    (place.folder / model.name / "plans.json").write_text(json.dumps(plans))
    arguments = bench.arguments(place.folder, place.output, 0, 0)
    run = bench.server.start(place.folder, *arguments, memory=200 * MIB)
    assert run.wait(LIMIT) == 2, run.errors
    assert "Traceback" not in run.errors
    for case in CASES:
        assert run.errors.count(f"  {case}: the memory of cpu does not suffice") == 1, run.errors
    assert place.labels() == set()
