"""Ctrl-C, which reaches all processes of a command at once, at whatever moment: no traceback, nothing left behind.

The command has begun by then: what comes while Python itself starts is Python's affair.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Folders
from helpers.commands import ENTRIES, half_written, succeed
from helpers.datasets import make_dataset
from helpers.models import write_model
from helpers.random_faults import write_images
from helpers.sessions import left_over, living_processes

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")

LIMIT = 120  # seconds
MOMENTS = 15
# argv: module and function of the command, its arguments
CODE = """
import sys

if __name__ == "__main__":
    from importlib import import_module
    from helpers.prediction_server import use_workers_for_tiny_cases

    module, function = sys.argv.pop(1).split(":")
    entry = getattr(import_module(f"nnunet_lite.cli.{module}"), function)
    if "predict" in function:
        use_workers_for_tiny_cases()
    print("begins", flush=True)
    sys.exit(entry())
"""


class Job(NamedTuple):
    """A command, and the folder it writes."""

    command: str
    arguments: list[object]
    folder: Path
    temporary: Path

    def begin(self) -> subprocess.Popen[str]:
        """Start it in a session of its own; it is about to call its entry."""
        paths = os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])
        script = self.temporary.parent / "command.py"
        script.write_text(CODE)
        process = subprocess.Popen(
            [sys.executable, str(script), ENTRIES[self.command], *map(str, self.arguments)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "begins\n"
        return process

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """Ctrl-C, and what must then be."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=LIMIT)
        finally:
            left = left_over(process.pid)
        assert "Traceback" not in errors, errors
        assert process.returncode in (0, 130, -signal.SIGINT), errors  # the last: it was over already
        assert process.returncode != 130 or "Stopped" in errors
        assert left == []
        assert half_written(self.folder) == [] and os.listdir(self.temporary) == []


@pytest.fixture(params=["predict", "preprocess", "evaluate"])
def job(request: pytest.FixtureRequest, nnunet_folders: Folders, tmp_path: Path) -> Iterator[Job]:
    (tmp_path / "tmp").mkdir()
    out = tmp_path / "out"
    if request.param == "predict":
        write_model(tmp_path / "model", folds=(0,))
        write_images(tmp_path / "images")
        arguments = ["-i", tmp_path / "images", "-o", out, "-m", tmp_path / "model", "-f", 0, "-device", "cpu"]
        yield Job("nnUNetv2_predict_from_modelfolder", [*arguments, "-npp", 1, "-nps", 1], out, tmp_path / "tmp")
        return
    raw = make_dataset(nnunet_folders.raw, n=8)
    if request.param == "preprocess":
        succeed("nnUNetv2_plan_and_preprocess", "-d", 901, "--no_pp", "-np", 0)
        folder = nnunet_folders.preprocessed / raw.name
        yield Job("nnUNetv2_preprocess", ["-d", 901, "-c", "3d_fullres", "-np", 2], folder, tmp_path / "tmp")
    else:
        out.mkdir()
        labels = raw / "labelsTr"
        arguments = [labels, labels, "-l", 1, 2, "-np", 2, "-o", out / "summary.json"]
        yield Job("nnUNetv2_evaluate_simple", arguments, out, tmp_path / "tmp")


def test_while_the_workers_start(job: Job) -> None:
    process = job.begin()
    deadline = time.monotonic() + LIMIT
    while len(living_processes(process.pid)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    job.interrupt(process)


@pytest.mark.slow
def test_at_any_moment(job: Job) -> None:
    start = time.monotonic()
    process = job.begin()
    assert process.communicate(timeout=LIMIT) and process.returncode == 0
    duration = time.monotonic() - start
    draw = random.Random(5)
    for _ in range(MOMENTS):
        process = job.begin()
        time.sleep(draw.uniform(0, duration))
        job.interrupt(process)
