"""torch.compile is used where it works and left out elsewhere, after one warning; precisions fit the device."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities import device as devices
from nnunet_lite.utilities.device import (
    can_compile,
    in_main_memory,
    on_this_stream,
    require_device,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    can_compile.cache_clear()
    yield
    can_compile.cache_clear()


def _fails(*arguments: Any) -> torch.Tensor:
    raise RuntimeError("Cannot find a working triton installation\nand much more")


def _fails_at_once(function: Callable[..., Any]) -> Any:
    raise RuntimeError("Dynamo is not supported on this Python\nand much more")


@pytest.mark.parametrize("compiler", [lambda function: _fails, _fails_at_once], ids=["when called", "when wrapped"])
def test_a_compiler_that_fails_is_left_out_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compiler: Callable[..., Any]
) -> None:
    monkeypatch.setattr(torch, "compile", compiler)
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        assert [can_compile(CPU), can_compile(CPU)] == [False, False]
    (message,) = caplog.messages
    assert "nnUNet_compile=false" in message
    assert "\n" not in message


def test_a_compiler_that_works_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or function)
    assert [can_compile(CPU), can_compile(CPU)] == [True, True]
    assert len(asked) == 1


@pytest.mark.parametrize(("capability", "works"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_needs_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], works: bool
) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", cuda, training=True) is torch.float16
    if works:
        assert resolve_precision("bf16", cuda, training=True) is torch.bfloat16
    else:
        with pytest.raises(ArgumentError, match="Ampere"):
            resolve_precision("bf16", cuda, training=True)


@pytest.mark.parametrize("hardware", [True, False])
def test_a_cpu_trains_in_bf16_only_where_it_has_it(monkeypatch: pytest.MonkeyPatch, hardware: bool) -> None:
    monkeypatch.setattr(devices, "cpu_supports_bf16", lambda: hardware)
    assert resolve_precision("auto", CPU, training=True) is (torch.bfloat16 if hardware else None)
    assert resolve_precision("auto", CPU, training=False) is None
    with pytest.raises(ArgumentError, match="needs a GPU"):
        resolve_precision("fp16", CPU, training=True)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_best_device_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("cuda", "use -device cpu"), ("mps", "use -device cpu"), ("gpu", "cpu, cuda, mps or auto")]
)
def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match=expected) as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_device(torch.device("cuda"))
    require_device(torch.device("cuda:1"))
    with pytest.raises(ArgumentError, match="no GPU cuda:2: PyTorch sees 2, numbered from 0"):
        require_device(torch.device("cuda:2"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="no CUDA GPU"):
        resolve_precision("bf16", torch.device("cuda"), training=False)


class OnGPU(torch.Tensor):
    """Values that say they are on a GPU; counts those that are copied at once."""

    device = torch.device("cuda")
    copied: list[int] = []

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.Tensor.cpu, torch.Tensor.copy_, torch.Tensor.contiguous):
            OnGPU.copied.append(args[-1].numel())
        return super().__torch_function__(function, types, args, kwargs)


def test_a_view_with_gaps_leaves_a_gpu_channel_by_channel() -> None:
    whole = torch.arange(2 * 5 * 6 * 7, dtype=torch.float16).reshape(2, 5, 6, 7)
    view = whole[:, 1:4, :, 2:]
    OnGPU.copied.clear()
    found = in_main_memory(view.as_subclass(OnGPU))
    assert type(found) is torch.Tensor and found.is_contiguous() and torch.equal(found, view)
    assert OnGPU.copied == [3 * 6 * 5] * 2
    OnGPU.copied.clear()
    assert torch.equal(in_main_memory(whole.as_subclass(OnGPU)), whole) and OnGPU.copied == [whole.numel()]
    assert in_main_memory(view).data_ptr() == view.data_ptr()


def test_another_thread_goes_on_in_the_stream_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used = threading.local()

    @contextlib.contextmanager
    def stream(chosen: str) -> Iterator[None]:
        used.stream = chosen
        yield
        used.stream = "default"

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: used.stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    used.stream = "mine"
    seen: list[tuple[str, int]] = []

    def work(number: int) -> None:
        seen.append((getattr(used, "stream", "default"), number))

    for function in (on_this_stream(torch.device("cuda:0"), work), on_this_stream(CPU, work)):
        thread = threading.Thread(target=function, args=(7,))
        thread.start()
        thread.join()
    assert seen == [("mine", 7), ("default", 7)]
