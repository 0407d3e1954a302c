"""Messages reach the terminal once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tqdm import tqdm

from nnunet_lite.utilities.logging import log_to_console, logger

_PROGRAM = """
import logging
from nnunet_lite.utilities.logging import log_to_console, logger
log_to_console()
logging.debug("as batchgenerators does it: gives the root logger a handler")
logger.info("ours")
logger.warning("beware")
logging.getLogger("other").warning("theirs")
"""


def test_a_library_that_logs_to_the_root_does_not_double_ours() -> None:
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout == "ours\n"
    assert result.stderr == "Warning: beware\ntheirs\n"


@contextmanager
def log_to_console_for_this_test() -> Iterator[None]:
    handlers, level = list(logger.handlers), logger.level
    log_to_console()
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def test_a_line_does_not_stick_to_a_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with log_to_console_for_this_test(), tqdm(total=2, desc="bar", leave=False, file=sys.stderr) as bar:
        bar.update(1)
        logger.warning("beware")
    errors = capfd.readouterr().err
    before, after = errors.split("Warning: beware\n")
    assert before.endswith("\r") and "bar" in before and "bar" in after


_TALKATIVE = """
from pathlib import Path
from nnunet_lite.utilities.logging import log_to_console, logger, open_missing_streams
open_missing_streams()
log_to_console()
for number in range(3):
    logger.info("line %d", number)
    logger.warning("beware")
with Path("result").open("w") as file:
    assert file.fileno() > 2
    file.write("done")
"""


def test_nobody_reads_what_is_said(tmp_path: Path) -> None:
    """Behind `| head` the work goes on to its end."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([sys.executable, "-c", _TALKATIVE], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(writing)
    assert (result.returncode, (tmp_path / "result").read_text()) == (0, "done")
    assert result.stderr == b"Warning: beware\n" * 3


@pytest.mark.skipif(os.name != "posix", reason="a shell's way to close streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    command = f'"{sys.executable}" -c "$PROGRAM" {closed}'
    result = subprocess.run(["sh", "-c", command], env={**os.environ, "PROGRAM": _TALKATIVE}, cwd=tmp_path)
    assert (result.returncode, (tmp_path / "result").read_text()) == (0, "done")
