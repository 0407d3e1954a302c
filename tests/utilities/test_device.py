"""torch.compile is used where it works and silently left out elsewhere, after one warning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nnunet_lite.utilities.device import can_compile

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
