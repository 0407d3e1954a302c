"""An export whose process is killed in the middle, the first time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from nnunet_lite.inference.export_prediction import load_mapped
from nnunet_lite.inference.export_queue import export_case


def die_once_then_export(logits: Any, properties: Any, documents: Any, output: str, probabilities: bool) -> Any:
    """As `export_case`, whose first process dies with the logits open."""
    mark = Path(f"{output}.died")
    if not mark.exists():
        mark.touch()
        load_mapped(logits)
        os.kill(os.getpid(), signal.SIGKILL)
    return export_case(logits, properties, documents, output, probabilities)


def fail_to_export(*arguments: Any) -> None:
    """An export that never works."""
    raise ValueError("no such thing")
