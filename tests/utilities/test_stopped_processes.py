"""Stopped processes are said once, and that they go on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_lite.utilities import stopped_processes
from nnunet_lite.utilities.processes import is_stopped
from nnunet_lite.utilities.stopped_processes import StoppedProcesses


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="states are read in /proc")
def test_said_once_and_again_when_it_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(stopped_processes, "_PATIENCE", 0.0)
    monkeypatch.setattr(stopped_processes, "_INTERVAL", 0.0)
    caplog.set_level(logging.INFO)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        watch = StoppedProcesses()
        watch.look([(process.pid, "case_a"), (None, "case_b")])
        assert caplog.text == ""
        os.kill(process.pid, signal.SIGSTOP)
        while not is_stopped(process.pid):
            time.sleep(0.01)
        for _ in range(4):
            watch.look([(process.pid, "case_a")])
            time.sleep(0.01)
        assert caplog.text.count("case_a waits for background process") == 1
        assert f"kill -CONT {process.pid} lets it go on" in caplog.text
        os.kill(process.pid, signal.SIGCONT)
        while is_stopped(process.pid):
            time.sleep(0.01)
        watch.look([(process.pid, "case_a")])
        assert f"case_a: process {process.pid} goes on" in caplog.text
    finally:
        process.kill()
        process.wait()
    assert not is_stopped(None)
