"""SIGTERM unwinds a command, and neither signal leaves a traceback at its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nnunet_lite.utilities.termination import orderly_sigterm, stops_are_kept

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@posix
def test_sigterm_leaves_through_the_normal_way_out_and_only_within() -> None:
    before = signal.getsignal(signal.SIGTERM)
    tidied = []
    with pytest.raises(SystemExit) as end, orderly_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            tidied.append(True)
    assert end.value.code == 143 and tidied == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_changes() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    @orderly_sigterm()
    def work() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_end_of_the_process_there_is_no_traceback(number: int) -> None:
    code = (
        "import atexit, os, sys, time\n"
        "from nnunet_lite.cli.command import command\n"
        f"atexit.register(lambda: (os.kill(os.getpid(), {int(number)}), time.sleep(5)))\n"
        "sys.exit(command(lambda argv: 0)())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (-number, "")


def end_of(code: str) -> tuple[int, str, str]:
    """Exit code and what a program says on stdout and stderr."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    return process.returncode, process.stdout, process.stderr


@posix
@pytest.mark.parametrize("block", ["termination.orderly_sigterm", "processes.as_worker"])
def test_a_stop_within_del_is_not_lost(block: str) -> None:
    module, name = block.split(".")
    code = (
        "import os, signal, time\n"
        f"from nnunet_lite.utilities.{module} import {name}\n"
        "class Slow:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        f"with {name}():\n"
        "    try:\n"
        "        Slow()\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidied')"
    )
    assert end_of(code) == (143, "tidied\n", "")


@posix
def test_ctrl_c_within_a_callback_is_not_lost() -> None:
    code = (
        "import os, signal, time, weakref\n"
        "from nnunet_lite.utilities.termination import orderly_sigterm\n"
        "class Thing:\n"
        "    pass\n"
        "def strike(_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "try:\n"
        "    with orderly_sigterm():\n"
        "        thing = Thing()\n"
        "        reference = weakref.ref(thing, strike)\n"
        "        del thing\n"
        "        time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('heard', signal.getitimer(signal.ITIMER_REAL))"
    )
    assert end_of(code) == (0, "heard (0.0, 0.0)\n", "")


@posix
def test_the_callers_alarm_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with stops_are_kept():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.getsignal(signal.SIGALRM) == before


@posix
def test_other_errors_that_nobody_can_catch_are_said_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("from del")

    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: said.append(str(lost.exc_value)))
    with stops_are_kept():
        Broken()
    assert said == ["from del"]
