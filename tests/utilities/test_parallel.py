"""The supervised pool: results, errors, deaths, memory admission, no orphans."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.exceptions import DatasetError, WorkerError
from nnunet_lite.utilities import parallel
from nnunet_lite.utilities.parallel import Task, WorkerPool, collect, run_tasks


def square(x: int) -> int:
    return x * x


def fail(text: str) -> None:
    raise DatasetError(text)


def divide(x: int) -> float:
    return 1 / x


def die(path: str, always: bool) -> str:
    marker = Path(path)
    if always or not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return "second try"


def nap(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def threads() -> str:
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("processes", [0, 2])
def test_every_task_gets_its_value(processes: int) -> None:
    tasks = [Task(f"case{i}", square, (i,)) for i in range(7)]
    assert collect(run_tasks(tasks, processes, show_progress=False)) == {f"case{i}": i * i for i in range(7)}


@pytest.mark.parametrize("processes", [0, 2])
def test_a_failure_does_not_stop_the_others_and_is_listed(processes: int) -> None:
    tasks = [Task("good", square, (3,)), Task("bad", fail, ("image is broken",)), Task("zero", divide, (0,))]
    outcomes = {o.name: o for o in run_tasks(tasks, processes, show_progress=False)}
    assert outcomes["good"].value == 9
    assert isinstance(outcomes["bad"].error, DatasetError)
    assert isinstance(outcomes["zero"].error, ZeroDivisionError)
    with pytest.raises((DatasetError, WorkerError), match="2 of 3 cases failed") as error:
        collect(outcomes.values())
    assert "bad: image is broken" in str(error.value)
    assert "zero: ZeroDivisionError" in str(error.value)


def test_a_message_that_begins_with_its_case_does_not_name_it_twice() -> None:
    tasks = [Task(name, fail, (f"{name}: image is broken",)) for name in ("b", "a")]
    with pytest.raises(DatasetError) as error:
        collect(run_tasks(tasks, 0, show_progress=False))
    assert str(error.value).splitlines() == ["2 of 2 cases failed:", "  a: image is broken", "  b: image is broken"]


def test_a_single_failure_is_raised_as_it_is() -> None:
    with pytest.raises(DatasetError, match="^image is broken$"):
        collect(run_tasks([Task("bad", fail, ("image is broken",))], 1, show_progress=False))


def test_the_case_of_a_dead_worker_is_tried_again(tmp_path: Path) -> None:
    tasks = [Task("fragile", die, (str(tmp_path / "a"), False)), *(Task(f"c{i}", square, (i,)) for i in range(5))]
    values = collect(run_tasks(tasks, 2, show_progress=False))
    assert values["fragile"] == "second try"
    assert values["c4"] == 16


def test_a_case_that_always_kills_its_worker_is_reported(tmp_path: Path) -> None:
    tasks = [Task("deadly", die, (str(tmp_path / "a"), True)), Task("fine", square, (2,))]
    outcomes = {o.name: o for o in run_tasks(tasks, 2, show_progress=False)}
    assert outcomes["fine"].value == 4
    assert isinstance(outcomes["deadly"].error, WorkerError)
    assert "SIGKILL" in str(outcomes["deadly"].error)
    assert "deadly" in str(outcomes["deadly"].error)


def test_large_tasks_wait_for_each_other() -> None:
    tasks = [Task(f"c{i}", nap, (0.3,), memory=600) for i in range(3)]
    spans = sorted(collect(run_tasks(tasks, 3, show_progress=False, max_ram=1000)).values())
    assert all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:], strict=False))


def test_a_task_larger_than_the_limit_still_runs_alone_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tasks = [Task("huge", nap, (0.2,), 3 * 2**30), Task("larger", nap, (0.2,), 4 * 2**30), Task("small", nap, (0,), 1)]
    spans = collect(run_tasks(tasks, 3, show_progress=False, max_ram=2**30))
    (first, end), (begin, last), small = spans["huge"], spans["larger"], spans["small"]
    assert end <= begin or last <= first
    assert not any(start < small[1] and small[0] < stop for start, stop in ((first, end), (begin, last)))
    assert (
        "2 of 3 cases need more memory by estimate than the limit of 1.0 GiB and run alone: huge (3.0 GiB), larger"
        in (caplog.text)
    )


def test_workers_get_their_share_of_threads_and_the_environment_is_restored() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    with WorkerPool(1, threads_per_worker=3) as pool:
        assert pool.submit(Task("t", threads)).result(timeout=30) == "3"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_leaving_with_an_error_ends_workers_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(KeyError), WorkerPool(1) as pool:
        future = pool.submit(Task("long", nap, (60,)))
        while not future.running():
            time.sleep(0.05)
        raise KeyError
    assert time.monotonic() - start < 20
    with pytest.raises(WorkerError, match="long: stopped before it was finished"):
        future.result(timeout=1)


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        from nnunet_lite.utilities.parallel import Task, WorkerPool
        def child(path):
            open(path, "w").write(str(os.getpid()))
            time.sleep(120)
        if __name__ == "__main__":
            with WorkerPool(1) as pool:
                pool.submit(Task("c", child, (sys.argv[1],))).result()
    """)
    )
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, str(script), str(pid_file)])
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_cannot_be_started_is_an_error_and_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(parallel, "_Worker", refuse)
    with WorkerPool(1) as pool:
        futures = [pool.submit(Task(f"case_{i}", os.getpid)) for i in range(2)]
        for i, future in enumerate(futures):
            with pytest.raises(WorkerError, match=f"case_{i}: no background process .*fewer processes"):
                future.result(timeout=30)


def test_a_script_with_an_unprotected_main_part_ends_with_advice_said_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os
        from nnunet_lite.utilities.parallel import Task, collect, run_tasks
        collect(run_tasks([Task("case", os.getpid), Task("other", os.getpid)], 2))
    """)
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.count("if __name__ == '__main__':") == 1
    assert result.stderr.splitlines()[-1].endswith("or ask for no processes (num_processes=0)")
    assert "memory" not in result.stderr
    assert result.stderr.count("Traceback") == 1  # that of the script itself


def test_a_pool_in_the_import_of_somebody_elses_process_says_why_not(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, os, sys
        from nnunet_lite.utilities.parallel import WorkerPool
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=os.getpid)
            process.start()
            process.join()
            sys.exit(process.exitcode)
        WorkerPool(1)
    """)
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "protect the main part of your script" in result.stderr.splitlines()[-1]


def length(content: bytes, _: Any = None) -> int:
    return len(content)


def zeros(number: int) -> bytes:
    return bytes(number)


class _Stopped(WorkerPool):
    """A pool that stops its first worker as soon as there is one."""

    def stop(self) -> int:
        deadline = time.monotonic() + 30
        while not (self._workers and self._workers[0].process.pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        pid = self._workers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        return pid


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped by a signal")
def test_a_stopped_worker_with_large_arguments_holds_up_nobody() -> None:
    content = bytes(2**22)
    with _Stopped(2) as pool:
        first = pool.submit(Task("first", length, (content,)))
        pid = pool.stop()
        assert pool.submit(Task("second", length, (content,))).result(timeout=60) == len(content)
        assert not first.done()
        os.kill(pid, signal.SIGCONT)
        assert first.result(timeout=60) == len(content)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped by a signal")
def test_a_pool_with_a_stopped_worker_ends() -> None:
    with pytest.raises(KeyboardInterrupt), _Stopped(1) as pool:
        future = pool.submit(Task("first", length, (bytes(2**22),)))
        pid = pool.stop()
        raise KeyboardInterrupt
    with pytest.raises(WorkerError, match="first: stopped before it was finished"):
        future.result(timeout=1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_large_results_come_back() -> None:
    with WorkerPool(1) as pool:
        assert pool.submit(Task("large", zeros, (2**24,))).result(timeout=60) == bytes(2**24)


def test_arguments_that_cannot_be_pickled_are_the_cases_error() -> None:
    with WorkerPool(1) as pool:
        with pytest.raises((TypeError, AttributeError)):
            pool.submit(Task("bad", length, (b"", lambda: None))).result(timeout=60)
        assert pool.submit(Task("good", length, (b"123",))).result(timeout=60) == 3


class Unreadable:
    """Arguments that raise when a worker reads them."""

    def __reduce__(self) -> Any:
        return divide, (0,)


def test_arguments_that_a_worker_cannot_read_are_the_cases_error(capfd: pytest.CaptureFixture[str]) -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(WorkerError, match="what its process was given cannot be read there: ZeroDivisionError"):
            pool.submit(Task("bad", length, (Unreadable(),))).result(timeout=60)
        assert pool.submit(Task("good", length, (b"123",))).result(timeout=60) == 3
    assert "Traceback" not in capfd.readouterr().err


def test_memory_that_does_not_suffice_for_a_result_is_the_tasks_error(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Connection.recv_bytes
    failures = [MemoryError()]

    def fail_once(self: Connection, *arguments: Any) -> bytes:
        message = receive(self, *arguments)
        if threading.current_thread().name == "nnunet_lite-courier" and failures:
            raise failures.pop()
        return message

    monkeypatch.setattr(Connection, "recv_bytes", fail_once)
    with WorkerPool(1) as pool:
        futures = [pool.submit(Task(f"case{number}", square, (number,))) for number in range(2)]
        with pytest.raises(WorkerError, match="what its process answered cannot be read: .*emory"):
            futures[0].result(60)
        assert futures[1].result(60) == 1


def sum_in_daemon(connection: Connection) -> None:
    tasks = [Task(f"case{i}", square, (i,)) for i in range(4)]
    with WorkerPool(2) as pool:
        connection.send((sum(collect(run_tasks(tasks, 2, show_progress=False)).values()), pool.size))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_daemonic_process_which_may_not_have_children_works_alone(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method}")
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=sum_in_daemon, args=(theirs,), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == (0 + 1 + 4 + 9, 0)
    process.join()


def _badness() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="a file of Linux")
def test_memory_that_ends_costs_a_worker_rather_than_the_command() -> None:
    before = _badness()
    with WorkerPool(1) as pool:
        assert pool.submit(Task("a", _badness)).result(60) == max(before, 500)
    assert _badness() == before


_STDIN = """
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
print(sum(collect(run_tasks([Task("a", max, (1, 2)), Task("b", max, (3, 4))], 2, show_progress=False)).values()))
"""


def test_a_program_that_comes_through_stdin() -> None:
    """Its main module is no file that the workers could import."""
    result = subprocess.run([sys.executable, "-"], input=_STDIN, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("6", "")


_GONE = """
import os
from nnunet_lite.utilities.parallel import Task, collect, run_tasks
os.rmdir(os.getcwd())
print(collect(run_tasks([Task("one", max, (1, 2))], 1, show_progress=False)))
"""


def test_a_current_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", _GONE]
    result = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "{'one': 2}" or "the current folder was deleted, change to" in result.stderr
