"""Batches come to a GPU on a stream of their own, for which the computing stream waits; a CPU only draws them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nnunet_lite.training.device_feed import DeviceFeed

CUDA = torch.device("cuda", 0)


class Stream:
    """Records what is done with it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Pinned(torch.Tensor):
    """A tensor that only pretends to be copied."""

    log: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> Any:
        assert device == CUDA
        assert non_blocking
        self.log.append("copy")
        return self

    @property
    def is_cuda(self) -> bool:
        return True

    def record_stream(self, stream: Stream) -> None:
        self.log.append(f"in use on {stream.name}")


def _pinned(log: list[str]) -> Pinned:
    tensor = torch.zeros(2).as_subclass(Pinned)
    tensor.log = log
    return tensor


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    streams = {"feed": Stream("feed", calls), "compute": Stream("compute", calls)}

    @contextlib.contextmanager
    def within(stream: Stream) -> Iterator[None]:
        calls.append(f"enter {stream.name}")
        yield
        calls.append(f"leave {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams["feed"])
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams["compute"])
    return calls


def test_copies_and_augmentation_lie_on_the_feeding_stream(log: list[str]) -> None:
    def draw() -> dict[str, Any]:
        log.append("draw")
        return {"data": _pinned(log), "target": [_pinned(log), _pinned(log)], "keys": ["a"]}

    batch = DeviceFeed(CUDA).draw(draw)
    assert log == [
        "enter feed", "draw", "copy", "copy", "copy", "leave feed",
        "compute waits for feed", *["in use on compute"] * 3,
    ]  # fmt: skip
    assert batch["keys"] == ["a"]
    assert isinstance(batch["target"], list)


def test_batches_of_other_kinds_pass_through(log: list[str]) -> None:
    assert DeviceFeed(CUDA).draw(lambda: ("own", "batch")) == ("own", "batch")
    assert "copy" not in log


def test_on_a_cpu_nothing_is_touched() -> None:
    batch = {"data": torch.zeros(2), "target": torch.zeros(2)}
    assert DeviceFeed(torch.device("cpu")).draw(lambda: batch) is batch
