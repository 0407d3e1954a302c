"""What the tests share: fresh nnU-Net folders, tiny datasets, and the shared data and recordings where they exist."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

# Shells let background jobs ignore Ctrl-C, and their children with them: `pytest &` must test the same as `pytest`
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Folders(NamedTuple):
    """The three folders that nnU-Net's environment variables name."""

    raw: Path
    preprocessed: Path
    results: Path


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Fresh, empty nnUNet_raw, nnUNet_preprocessed and nnUNet_results, set in the environment."""
    folders = Folders(*(tmp_path / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")))
    for folder in folders:
        folder.mkdir()
        monkeypatch.setenv(folder.name, str(folder))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    return folders


def _existing(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"no {what} at {folder} (set NNUNET_LITE_SHARED to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data, recordings of upstream and the peer's installer; tests that need it skip without."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    return _existing(Path(os.environ.get("NNUNET_LITE_SHARED", beside)), "shared folder")


@pytest.fixture(scope="session")
def goldens(shared: Path) -> Path:
    """Outputs recorded from upstream 2.8.1."""
    return _existing(shared / "goldens", "recordings of upstream")


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real datasets in nnU-Net raw layout."""
    return _existing(shared / "data", "datasets")
