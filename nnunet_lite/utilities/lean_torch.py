"""Keeps torch from loading its compiler before anything is compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_EXEMPTION = "__dynamo_disable"  # where torch keeps a function's version that is exempt from compilation


def load_compiler_when_needed() -> None:
    """Let optimizers be built and loaded without the compiler, which takes 1.5 s to import.

    torch exempts some methods of optimizers from compilation when they are first called, and imports the compiler for
    that. As long as nobody else has imported it there is nothing to be exempt from. The first `step` of an optimizer
    imports it all the same; a validation never comes to that. Does nothing with a torch that works another way.
    """
    exempt: Any = getattr(torch, "_disable_dynamo", None)
    if exempt is None or _COMPILER in sys.modules:
        return
    code = getattr(exempt(load_compiler_when_needed), "__code__", None)
    for method in vars(torch.optim.Optimizer).values():
        original = getattr(method, "__wrapped__", None)
        if isinstance(original, FunctionType) and getattr(method, "__code__", None) is code:
            _put_off(method, original)


def _put_off(method: Callable[..., Any], original: FunctionType) -> None:
    if hasattr(original, _EXEMPTION):
        return

    def until_then(*args: Any, **kwargs: Any) -> Any:
        if _COMPILER not in sys.modules:
            return original(*args, **kwargs)
        if getattr(original, _EXEMPTION, None) is until_then:
            delattr(original, _EXEMPTION)  # torch's own way from now on
        return method(*args, **kwargs)

    setattr(original, _EXEMPTION, until_then)
