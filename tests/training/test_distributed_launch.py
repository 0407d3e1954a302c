"""One process per GPU: started, watched, stopped and ended together (on the CPU, with gloo)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_lite.configuration import cpu_count
from nnunet_lite.exceptions import ArgumentError, DatasetError, WorkerError
from nnunet_lite.training import interruption, process_group
from nnunet_lite.training.distributed_launch import in_processes
from nnunet_lite.training.interruption import StopRequest, TrainingInterrupted, ends_at_once
from nnunet_lite.training.process_group import Member, check_devices, member_from_environment, share_of_processors
from nnunet_lite.utilities import distributed

CPU = torch.device("cpu")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@in_processes
def work(what: str, folder: Path, num_gpus: int = 1, device: torch.device = CPU) -> None:
    """Behave like a training of some kind."""
    TASKS[what](folder)


def _describe(folder: Path) -> None:
    values = (distributed.local_rank(), distributed.world_size(), os.environ.get("OMP_NUM_THREADS"))
    (folder / f"rank_{distributed.rank()}").write_text(repr(values))
    distributed.barrier()


def _mistake(folder: Path) -> None:
    raise DatasetError("there is no such dataset")


def _fail_in_one(folder: Path) -> None:
    if distributed.rank() == 1:
        raise KeyError("patch")
    distributed.barrier()


def _die_in_one(folder: Path) -> None:
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


def _hang_in_one(folder: Path) -> None:
    if distributed.rank() == 1:
        raise DatasetError("case_3 is gone")
    time.sleep(600)


def _train(folder: Path) -> None:
    """Iterations until any rank is asked to stop; all write at which they stopped."""
    with StopRequest() as stop:
        for iteration in range(10**6):
            if distributed.highest(stop.received is not None):
                (folder / f"stopped_{distributed.rank()}").write_text(str(iteration))
                raise TrainingInterrupted("--val")
            (folder / f"ready_{distributed.rank()}").write_text(str(os.getpid()))
            time.sleep(0.02)


def _validate(folder: Path) -> None:
    """What knows no stopping in between."""
    (folder / f"ready_{distributed.rank()}").write_text(str(os.getpid()))
    time.sleep(600)


def _evaluate(folder: Path) -> None:
    """A final validation that needs a while to leave."""
    with ends_at_once("--val"):
        try:
            _validate(folder)
        finally:
            time.sleep(1)


def _leave_in_one(folder: Path) -> None:
    """Stopped where ranks cannot agree, as at the start of a training."""
    if distributed.rank() == 1:
        raise TrainingInterrupted
    distributed.barrier()


TASKS: dict[str, Callable[[Path], None]] = {
    "describe": _describe,
    "mistake": _mistake,
    "fail in one": _fail_in_one,
    "die in one": _die_in_one,
    "hang in one": _hang_in_one,
    "train": _train,
    "validate": _validate,
    "evaluate": _evaluate,
    "leave in one": _leave_in_one,
}


def _when_ready(folder: Path, send: Callable[[list[int]], None]) -> threading.Thread:
    """Send signals as soon as both ranks are at work."""

    def watch() -> None:
        files = [folder / f"ready_{rank}" for rank in range(2)]
        while not all(file.is_file() and file.read_text() for file in files):
            time.sleep(0.05)
        send([int(file.read_text()) for file in files])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_one_process_is_this_process(tmp_path: Path) -> None:
    work("describe", tmp_path)
    assert (tmp_path / "rank_0").read_text() == repr((0, 1, os.environ.get("OMP_NUM_THREADS")))


def test_each_process_knows_its_place_and_has_its_share_of_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    work("describe", tmp_path, num_gpus=2)
    for rank in range(2):
        assert (tmp_path / f"rank_{rank}").read_text() == repr((rank, 2, str(max(1, cpu_count() // 2))))
    assert not set(VARIABLES[:4]) & set(os.environ)


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        pytest.param("mistake", DatasetError, "^there is no such dataset$", marks=pytest.mark.slow),
        ("fail in one", WorkerError, "The process of GPU 1 failed: KeyError: 'patch'"),
        ("die in one", WorkerError, "The process of GPU 1 ended .SIGKILL"),
        pytest.param("hang in one", DatasetError, "^case_3 is gone$", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_ends_all_and_its_error_is_told(
    tmp_path: Path, what: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        work(what, tmp_path, num_gpus=2)


@pytest.mark.parametrize(
    "receiver",
    ["all", pytest.param("parent", marks=pytest.mark.slow), pytest.param("one rank", marks=pytest.mark.slow)],
)
def test_all_ranks_stop_at_the_same_iteration(tmp_path: Path, receiver: str) -> None:
    def send(ranks: list[int]) -> None:
        for pid in {"parent": [os.getpid()], "one rank": ranks[1:], "all": [*ranks, os.getpid()]}[receiver]:
            os.kill(pid, signal.SIGTERM)

    thread = _when_ready(tmp_path, send)
    with pytest.raises(TrainingInterrupted) as stop:
        work("train", tmp_path, num_gpus=2)
    thread.join()
    assert stop.value.flag == "--val"
    assert (tmp_path / "stopped_0").read_text() == (tmp_path / "stopped_1").read_text()


@pytest.mark.slow
def test_one_rank_that_has_stopped_stops_the_other(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        work("leave in one", tmp_path, num_gpus=2)


@pytest.mark.slow
def test_ctrl_c_outside_of_the_training_ends_all(tmp_path: Path) -> None:
    thread = _when_ready(tmp_path, lambda ranks: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        work("validate", tmp_path, num_gpus=2)
    thread.join()


def test_a_signal_to_the_whole_group_outside_of_the_training(tmp_path: Path) -> None:
    """Each rank gets it twice: from the scheduler and, passed on, from its parent."""

    def send(ranks: list[int]) -> None:
        for pid in [*ranks, os.getpid()]:
            os.kill(pid, signal.SIGTERM)

    thread = _when_ready(tmp_path, send)
    with pytest.raises(TrainingInterrupted) as stop:
        work("evaluate", tmp_path, num_gpus=2)
    thread.join()
    assert stop.value.flag == "--val"


def _script(folder: Path, what: str, number: int) -> str:
    """A program that does what a command does: work, and a user's mistake as one line."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
        "from nnunet_lite.cli.command import command\nfrom test_distributed_launch import work\n"
        f"@command\ndef main(argv):\n    work({what!r}, Path({str(folder)!r}), num_gpus={number})\n"
        "if __name__ == '__main__':\n    sys.exit(main([]))\n"
    )
    script = folder / "script.py"
    script.write_text(code)
    return str(script)


def _torchrun(folder: Path, what: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*launcher, _script(folder, what, 1)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("mistake", ["Error: there is no such dataset"]),
        ("hang in one", ["Error: case_3 is gone"]),
        ("die in one", ["Error: Rank 0 lost the connection to another process of the training, which has ended; "]),
    ],
)
def test_failures_under_torchrun(tmp_path: Path, what: str, lines: list[str]) -> None:
    launcher = _torchrun(tmp_path, what)
    output, _ = launcher.communicate()
    assert launcher.returncode == 1
    errors = [line for line in output.splitlines() if line.startswith("Error:")]
    assert [line[: len(expected)] for line, expected in zip(errors, lines, strict=True)] == lines


@pytest.mark.slow
def test_all_ranks_of_torchrun_stop_at_the_same_iteration(tmp_path: Path) -> None:
    launcher = _torchrun(tmp_path, "train")
    _when_ready(tmp_path, lambda ranks: launcher.terminate()).join()
    launcher.communicate()
    assert (tmp_path / "stopped_0").read_text() == (tmp_path / "stopped_1").read_text()


@pytest.mark.slow
def test_ranks_end_with_their_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, _script(tmp_path, "validate", 2)])
    found: list[int] = []
    _when_ready(tmp_path, found.extend).join()
    parent.kill()
    parent.wait()
    for pid in found:
        while _runs(pid):
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(ArgumentError, match="MASTER_PORT=.*: it is in use; give another one"):
            work("describe", tmp_path, num_gpus=2)
    monkeypatch.setenv("MASTER_PORT", "many")
    with pytest.raises(ArgumentError, match="MASTER_PORT=many: ports are numbers"):
        work("describe", tmp_path, num_gpus=2)
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ArgumentError, match=r"2 GPUs were asked for, 1 can be seen.*DEVICES=3\); use at most"):
        check_devices(torch.device("cuda"), 2)
    check_devices(torch.device("cuda"), 1)
    check_devices(CPU, 20)
    with pytest.raises(ArgumentError, match="mps has one GPU"):
        check_devices(torch.device("mps"), 2)


def _environment(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_places_given_by_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert member_from_environment() is None
    _environment(monkeypatch, RANK=0, WORLD_SIZE=1)  # as some clusters set in every job
    assert member_from_environment() is None
    _environment(monkeypatch, RANK=3, WORLD_SIZE=4, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    with pytest.raises(ArgumentError, match="MASTER_ADDR and MASTER_PORT not; start with torchrun"):
        member_from_environment()
    _environment(monkeypatch, MASTER_ADDR="node1", MASTER_PORT=29500)
    assert member_from_environment() == Member(3, 4, 1, 2)
    _environment(monkeypatch, RANK=4)
    with pytest.raises(ArgumentError, match="ranks must be below sizes"):
        member_from_environment()


def test_num_gpus_that_contradict_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, RANK=0, WORLD_SIZE=4, LOCAL_RANK=0, LOCAL_WORLD_SIZE=2)
    _environment(monkeypatch, MASTER_ADDR="node1", MASTER_PORT=29500)
    with pytest.raises(ArgumentError, match=r"-num_gpus 3, but torchrun started 4 processes \(2 on this machine\)"):
        work("describe", tmp_path, num_gpus=3)


def test_processors_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "cpu_count", lambda: 16)
    monkeypatch.setattr(process_group, "num_compute_threads", lambda: 16)
    monkeypatch.setattr(process_group, "num_processes_data_augmentation", lambda: 12)
    assert share_of_processors(4) == {"OMP_NUM_THREADS": "4", "nnUNet_n_proc_DA": "4"}
    assert share_of_processors(32) == {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1"}
    monkeypatch.setattr(process_group, "num_processes_data_augmentation", lambda: 0)
    assert share_of_processors(4)["nnUNet_n_proc_DA"] == "0"


def test_a_request_reaches_the_training_that_runs() -> None:
    assert not interruption.request("SIGTERM")
    with StopRequest() as stop:
        assert interruption.request("SIGTERM")
        assert interruption.request("SIGINT")
        assert stop.received == "SIGTERM"
    assert not interruption.request("SIGTERM")
