"""SIGTERM unwinds a command, and neither signal leaves a traceback at its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nnunet_lite.utilities.termination import orderly_sigterm

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
