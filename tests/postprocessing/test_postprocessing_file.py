"""postprocessing.pkl without anybody's code in it, in both directions."""

from __future__ import annotations

import json
import pickle
import pickletools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.postprocessing.connected_components import remove_all_but_largest_component_from_segmentation
from nnunet_lite.postprocessing.postprocessing_file import FUNCTION, load_postprocessing, save_postprocessing

STEPS: list[dict[str, Any]] = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 1}, {"labels_or_regions": (1, 2)}]


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for upstream's module."""
    parent = None
    for name in ("nnunetv2", "nnunetv2.postprocessing", "nnunetv2.postprocessing.remove_connected_components"):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        if parent is not None:
            setattr(parent, name.rpartition(".")[2], module)
        parent = module

    def stand_in() -> None: ...

    stand_in.__module__, stand_in.__qualname__ = module.__name__, FUNCTION
    setattr(module, FUNCTION, stand_in)
    return module


@pytest.mark.parametrize("steps", [[], STEPS[:1], STEPS])
def test_there_and_back(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    save_postprocessing(steps, tmp_path / "postprocessing.pkl")
    assert load_postprocessing(tmp_path / "postprocessing.pkl") == steps


@pytest.mark.parametrize("steps", [[], STEPS])
def test_upstream_reads_ours(tmp_path: Path, upstream: ModuleType, steps: list[dict[str, Any]]) -> None:
    save_postprocessing([{"labels_or_regions": entry["labels_or_regions"]} for entry in steps], tmp_path / "pp.pkl")
    content = (tmp_path / "pp.pkl").read_bytes()
    functions, kwargs = pickle.loads(content)
    assert functions == [getattr(upstream, FUNCTION)] * len(steps) and kwargs == steps
    named = {argument for opcode, argument, _ in pickletools.genops(content) if "GLOBAL" in opcode.name}
    assert named <= {f"{upstream.__name__} {FUNCTION}"}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_ours_reads_upstreams(tmp_path: Path, upstream: ModuleType, protocol: int) -> None:
    kwargs = [{"labels_or_regions": [np.int64(1), np.int64(2)]}, {"labels_or_regions": (np.int64(1), 2)}]
    content = pickle.dumps(([getattr(upstream, FUNCTION)] * 2, kwargs), protocol)
    (tmp_path / "pp.pkl").write_bytes(content)
    loaded = load_postprocessing(tmp_path / "pp.pkl")
    assert loaded == [{"labels_or_regions": [1, 2]}, {"labels_or_regions": (1, 2)}]
    assert type(loaded[0]["labels_or_regions"][0]) is int


def test_another_background(tmp_path: Path) -> None:
    steps = [{"labels_or_regions": 2, "background_label": 1}]
    save_postprocessing(steps, tmp_path / "pp.pkl")
    assert load_postprocessing(tmp_path / "pp.pkl") == steps


class Hostile:
    """Runs a command when unpickled freely."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_hostile_and_damaged_files_run_nothing(tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "pp.pkl"
    save_postprocessing(STEPS, file)
    whole = file.read_bytes()
    contents = [
        pickle.dumps(Hostile(mark)),
        pickle.dumps(([remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": Hostile(mark)}])),
        pickle.dumps(([eval], [{"labels_or_regions": 1}])),
        b"cos\nsystem\n(S'touch executed'\ntR.",
        whole.replace(FUNCTION.encode(), b"remove_something_else"),
        whole[:-10],
        b"",
        pickle.dumps(([], [{"labels_or_regions": 1}])),
        pickle.dumps(([remove_all_but_largest_component_from_segmentation], [{"labels": 1}])),
        pickle.dumps(([remove_all_but_largest_component_from_segmentation], [1])),
        pickle.dumps(7),
    ]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=r"pp\.pkl"):
            load_postprocessing(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"postprocessing_fns": ["os.system"], "postprocessing_kwargs": [{"labels_or_regions": 1}]}'],
)
def test_other_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "pp.json").write_text(content)
    with pytest.raises(DatasetError, match=r"pp\.json"):
        load_postprocessing(tmp_path / "pp.json")


def test_json(tmp_path: Path) -> None:
    content = {"postprocessing_fns": [FUNCTION], "postprocessing_kwargs": [{"labels_or_regions": [[1, 2]]}], "more": 1}
    (tmp_path / "pp.json").write_text(json.dumps(content))
    assert load_postprocessing(tmp_path / "pp.json") == [{"labels_or_regions": [[1, 2]]}]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is a folder, expected a file such as .*postprocessing\.pkl"):
        load_postprocessing(tmp_path)
    (tmp_path / "case.pkl").write_bytes(pickle.dumps({"spacing": [1.0], "sitk_stuff": {}}))
    with pytest.raises(DatasetError, match="it holds dict, expected functions"):
        load_postprocessing(tmp_path / "case.pkl")
    with pytest.raises(DatasetError, match="There is no postprocessing file .* nnUNetv2_determine_postprocessing"):
        load_postprocessing(tmp_path / "pp.pkl")
