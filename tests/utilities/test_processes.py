"""Environment, signals and end of background processes."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from nnunet_lite.utilities.processes import describe_exit, describe_state, environment


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows sends Ctrl-C otherwise")
def test_ctrl_c_while_a_worker_starts_is_left_to_the_parent() -> None:
    process = multiprocessing.get_context("spawn").Process(target=abs, args=(2,))
    with environment({}):
        process.start()
    os.kill(process.pid or 0, signal.SIGINT)  # while it imports
    process.join(60)
    assert process.exitcode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # and here it works as before


def test_a_variable_stands_in_the_environment_of_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "before")
    monkeypatch.delenv("OTHER", raising=False)
    with environment({"ONE": "1", "OTHER": "2"}):
        assert (os.environ["ONE"], os.environ["OTHER"]) == ("1", "2")
    assert os.environ["ONE"] == "before"
    assert "OTHER" not in os.environ


@pytest.mark.parametrize(
    ("code", "text"), [(3, "exit code 3"), (-int(signal.SIGTERM), "SIGTERM"), (128 + int(signal.SIGTERM), "SIGTERM")]
)
def test_why_a_process_ended(code: int, text: str) -> None:
    assert describe_exit(code) == text


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells")
def test_states_of_processes() -> None:
    assert describe_state(os.getpid()) == "it is computing"
    assert describe_state(2**22 + 12345) == "its state is unknown"
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
    assert describe_state(child) == "it has ended"
    os.waitpid(child, 0)
