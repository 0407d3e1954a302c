"""Environment folders are read when used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_lite.exceptions import PathError
from nnunet_lite.paths import external_class_folders, nnUNet_raw


def test_unset_matters_only_on_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert not nnUNet_raw.is_set() and nnUNet_raw.get() is None and not nnUNet_raw
    with pytest.raises(PathError, match="export nnUNet_raw="):
        os.path.join(nnUNet_raw, "x")


def test_set_behaves_as_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_raw", f'"{tmp_path}"')
    assert nnUNet_raw == str(tmp_path)
    assert nnUNet_raw / "a" == tmp_path / "a"
    assert os.path.join(nnUNet_raw, "a") == str(tmp_path / "a")


def test_external_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), "", "/does/not/exist"]))
    assert external_class_folders() == [tmp_path]
