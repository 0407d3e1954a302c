"""torch.compile with a way back: a network that the compiler fails on computes uncompiled, after one warning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import nn

from nnunet_lite.utilities.logging import logger

T = TypeVar("T")

_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def with_way_back(compute: Callable[[], T], *modules: object) -> T:
    """Result of `compute`; if the compiler fails in it, the modules become uncompiled and it is computed again.

    The compiler works when a module is first called with inputs of a kind, backward passes even later, so that
    `torch.compile` itself hardly ever fails.
    """
    try:
        return compute()
    except Exception as error:
        if not (_of_the_compiler(error) and _stop_compiling(modules)):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        logger.warning(
            "torch.compile failed on this network (%s: %s); going on without it, which is slower "
            "(nnUNet_compile=false avoids this attempt)",
            type(error).__name__,
            reason,
        )
    return compute()


def _of_the_compiler(error: BaseException) -> bool:
    return any(kind.__module__.startswith(_COMPILER) for one in _chain(error) for kind in type(one).__mro__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _stop_compiling(modules: Iterable[object]) -> bool:
    """Let every compiled part of the modules call what was compiled; whether there was one.

    The wrapper stays, since names of weights, DistributedDataParallel and users refer to it.
    """
    found = False
    for part in (part for module in modules if isinstance(module, nn.Module) for part in module.modules()):
        original = part._modules.get("_orig_mod")
        if original is not None and part.__dict__.get("forward") != original.__call__:
            part.__dict__["forward"] = original.__call__
            found = True
    return found
