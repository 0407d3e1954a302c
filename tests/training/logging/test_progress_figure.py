"""The figure is something that a training can do without."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from nnunet_lite.training.logging import progress_figure


def test_without_matplotlib_there_is_no_figure_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    progress_figure._matplotlib_is_here.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "nnunet_lite"):
            for _ in range(2):
                progress_figure.draw_progress({}, 0, tmp_path)
    finally:
        progress_figure._matplotlib_is_here.cache_clear()
    assert not any(tmp_path.iterdir())
    (message,) = caplog.messages
    assert "matplotlib is not installed" in message
