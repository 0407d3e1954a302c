"""The processes of a command that was started in a session of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def living_processes(session: int) -> list[int]:
    """Processes of a session that are neither ended nor zombies, the oldest number first."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if its_session == str(session) and state != "Z":
            found.append(int(entry.name))
    return sorted(found)


def left_over(session: int, seconds: float = 10) -> list[int]:
    """What still lives some seconds after the command has ended; it is killed."""
    deadline = time.monotonic() + seconds
    while (left := living_processes(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left
