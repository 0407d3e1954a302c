"""torch.compile with a way back: a network that the compiler fails on computes uncompiled, after one warning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from nnunet_lite.utilities.device import is_out_of_memory
from nnunet_lite.utilities.logging import logger

T = TypeVar("T")


def with_way_back(compute: Callable[[], T], *modules: object) -> T:
    """Result of `compute`; if it fails while something in the modules is compiled, it is tried again without.

    The compiler works when a module is first called with inputs of a kind, on backward passes even later, so that
    `torch.compile` itself hardly ever fails. What is not the compiler's fault fails again and is raised.
    """
    try:
        return compute()
    except Exception as error:
        if is_out_of_memory(error) or not _stop_compiling(modules):  # uncompiled takes no less memory
            raise
        result = compute()
        reason = (str(error).strip().splitlines() or [""])[0]
        logger.warning(
            "torch.compile failed on this network (%s: %s); going on without it, which is slower "
            "(nnUNet_compile=false avoids this attempt)",
            type(error).__name__,
            reason,
        )
        return result


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
