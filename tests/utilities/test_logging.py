"""Messages reach the terminal once."""

from __future__ import annotations

import subprocess
import sys

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
