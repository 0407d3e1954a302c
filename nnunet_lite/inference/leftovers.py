"""What predictions that were killed left behind."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from nnunet_lite.utilities import exchange_folder
from nnunet_lite.utilities.temporary_names import remove_abandoned_files


def remove_leftovers(output_folder: Path) -> None:
    """Remove half-written files and exchange folders of processes that are gone; what other ones use stays."""
    remove_abandoned_files(output_folder)
    with contextlib.suppress(OSError):
        exchange_folder.remove_abandoned(output_folder)
        exchange_folder.remove_abandoned(Path(tempfile.gettempdir()))
