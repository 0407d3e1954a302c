"""Checkpoints: what is read, what is refused, and that a kill at any moment leaves one that loads."""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_lite.exceptions import CheckpointError, StorageError
from nnunet_lite.models.checkpoint import load_checkpoint, load_weights, not_finite, save_checkpoint, unwrap


class _Executed:
    """Makes a file when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def _checkpoint(**more: Any) -> dict[str, Any]:
    return {"network_weights": {"weight": torch.arange(3.0)}, **more}


def test_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    save_checkpoint(_checkpoint(_best_ema=0.5, logging={"lrs": [0.1]}, init_args={"device": torch.device("cpu")}), file)
    loaded = load_checkpoint(file)
    assert (loaded["_best_ema"], loaded["logging"]) == (0.5, {"lrs": [0.1]})
    assert torch.equal(loaded["network_weights"]["weight"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_final.pth"]


def test_prefixes_of_ddp_and_compile_are_stripped(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    weights = {"module._orig_mod.a.weight": torch.ones(1), "_orig_mod.b": torch.ones(1), "c._orig_mod.d": torch.ones(1)}
    save_checkpoint({"network_weights": weights}, file)
    assert list(load_checkpoint(file)["network_weights"]) == ["a.weight", "b", "c.d"]


def test_numpy_scalars_as_upstream_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    torch.save(_checkpoint(_best_ema=np.float32(0.25), logging={"x": [np.float64(1), np.int64(2), np.zeros(2)]}), file)
    loaded = load_checkpoint(file)
    assert loaded["_best_ema"] == 0.25
    assert [float(np.sum(value)) for value in loaded["logging"]["x"]] == [1, 2, 0]


def test_several_threads_read_what_has_numpy_scalars(tmp_path: Path) -> None:
    """What torch lets a file name is one list for all threads, which the first to end would clear for the others."""
    file = tmp_path / "c.pth"
    torch.save(_checkpoint(logging={"x": [np.float64(1) for _ in range(500)]}), file)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: len(load_checkpoint(file)["logging"]["x"]), range(12)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [500] * 12


def test_numpy_scalars_under_the_name_of_numpy_1(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"

    class Pickle:
        """Names numpy's modules as numpy 1 did."""

        Unpickler = pickle.Unpickler

        class Pickler(pickle._Pickler):  # the one written in Python can be told how to name globals
            def save_global(self, obj: Any, name: str | None = None) -> None:
                if getattr(obj, "__name__", "") == "scalar":
                    self.write(b"cnumpy.core.multiarray\nscalar\n")
                    self.memoize(obj)
                else:
                    super().save_global(obj, name)

            dispatch = {**pickle._Pickler.dispatch, type(os.getcwd): save_global}

    torch.save(_checkpoint(_best_ema=np.float32(0.25)), file, pickle_module=Pickle)
    assert b"numpy.core.multiarray" in file.read_bytes()
    assert load_checkpoint(file)["_best_ema"] == 0.25


def test_checkpoint_of_upstream(goldens: Path) -> None:
    folder = goldens / "Dataset004_Hippocampus" / "predictions" / "model" / "fold_0"
    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert len(checkpoint["network_weights"]) == 188


def test_malicious_pickle_is_never_executed(tmp_path: Path) -> None:
    file, target = tmp_path / "c.pth", tmp_path / "executed"
    torch.save(_checkpoint(extra=_Executed(target)), file)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(file)
    for protocol in (2, 4):
        file.write_bytes(pickle.dumps(_checkpoint(extra=_Executed(target)), protocol=protocol))
        with pytest.raises(CheckpointError):
            load_checkpoint(file)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04" + bytes(200)])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint, or a damaged one") as caught:
        load_checkpoint(file)
    assert "\n" not in str(caught.value)


def test_a_folder_names_the_checkpoints_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder; give a \.pth file such as fold_0/checkpoint_final\.pth"):
        load_checkpoint(tmp_path)
    for name in ("final", "best"):
        save_checkpoint(_checkpoint(), tmp_path / f"checkpoint_{name}.pth")
    with pytest.raises(
        CheckpointError, match=r"is a folder; it has checkpoint_best\.pth, checkpoint_final\.pth: name one"
    ):
        load_checkpoint(tmp_path)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    save_checkpoint(_checkpoint(), file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(file)


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    save_checkpoint(_checkpoint(), tmp_path / "checkpoint_best.pth")
    with pytest.raises(CheckpointError, match=r"there are: checkpoint_best\.pth"):
        load_checkpoint(tmp_path / "checkpoint_final.pth")
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_checkpoint(tmp_path / "nowhere" / "checkpoint_final.pth")


def test_a_file_without_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="no 'network_weights'"):
        load_checkpoint(tmp_path / "c.pth")


class _Twice(nn.Module):
    """One tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.b = self.a


def test_weights_kept_once_fill_all_their_names() -> None:
    network = _Twice()
    load_weights(network, {"module.a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)})
    assert torch.equal(network.b.weight, torch.ones(2, 2))


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(CheckpointError, match=r"1 missing: bias; 1 unknown: c; 1 of another shape: weight \(\(3, 2\)"):
        load_weights(nn.Linear(2, 2), {"weight": torch.ones(3, 2), "c": torch.ones(1)})


def test_weights_of_a_training_that_diverged_are_named() -> None:
    weights = {"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")]), "c": torch.full((2,), float("inf"))}
    large = {"d": torch.full((4,), 3e38), "e": torch.tensor([1, 2]), "f": "no tensor"}  # a sum that overflows
    assert not_finite({**weights, **large}) == ["b", "c"]


def test_unwrap() -> None:
    network = nn.Linear(1, 1)
    assert unwrap(network) is network
    assert unwrap(torch.compile(network)) is network


def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.pth"
    save_checkpoint(_checkpoint(current_epoch=1), file)

    def full(checkpoint: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        save_checkpoint(_checkpoint(current_epoch=2), file)
    assert "\n" not in str(caught.value)
    assert load_checkpoint(file)["current_epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


_WRITER = """
import sys, torch
from nnunet_lite.models.checkpoint import save_checkpoint
for epoch in range(10**6):
    weights = {"w": torch.full((400_000,), float(epoch))}
    save_checkpoint({"network_weights": weights, "current_epoch": epoch}, sys.argv[1])
    print(epoch, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_while_writing(tmp_path: Path, kills: int) -> None:
    file, moments = tmp_path / "checkpoint_latest.pth", random.Random(0)
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # the first one is written
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        checkpoint = load_checkpoint(file)
        assert bool((checkpoint["network_weights"]["w"] == checkpoint["current_epoch"]).all())
