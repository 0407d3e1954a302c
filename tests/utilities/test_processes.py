"""Environment, signals and end of background processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from nnunet_lite.utilities.processes import describe_exit, describe_state, environment

_STRUCK_TWICE = """
with as_worker():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("tidied")
"""
_STRUCK_AFTERWARDS = """
with as_worker():
    print("over", flush=True)
assert callable(signal.getsignal(signal.SIGTERM))
os.kill(os.getpid(), signal.SIGTERM)
print("not at once")
"""


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


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("lines", "told"), [(_STRUCK_TWICE, "tidied\n"), (_STRUCK_AFTERWARDS, "over\n")])
def test_a_worker_is_struck_again(lines: str, told: str) -> None:
    """While it tidies up, which goes on; and when it is about to end, which it does at once."""
    head = "import os, signal\nfrom nnunet_lite.utilities.processes import as_worker\n"
    process = subprocess.run([sys.executable, "-c", head + lines], capture_output=True, text=True, timeout=30)
    assert (process.returncode, process.stdout, process.stderr) == (143, told, "")


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
