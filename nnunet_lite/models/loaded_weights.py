"""Which weights a network has, so that they are loaded again only where that changes something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


class LoadedWeights:
    """The weights that were just loaded into a network.

    Args:
        network: which has them.
        weights: of it, by name.
    """

    def __init__(self, network: nn.Module, weights: Mapping[str, Any]) -> None:
        self._network, self._weights = network, weights
        self._state = _state(network, weights)

    def still_holds(self, network: nn.Module, weights: Mapping[str, Any]) -> bool:
        """Whether loading these would change nothing: nobody has exchanged or written to either of them since.

        Not seen is what was written past torch's own book-keeping, through `.data` or a numpy array.
        """
        if network is not self._network or weights is not self._weights:
            return False
        state = _state(network, weights)
        return len(state) == len(self._state) and all(
            now is before and version is not None and version == then
            for (now, version), (before, then) in zip(state, self._state, strict=True)
        )


def _state(network: nn.Module, weights: Mapping[str, Any]) -> list[tuple[Any, int | None]]:
    """All tensors with the number of times they were written to; None where torch does not count."""
    tensors: Iterable[Any] = [*weights.values(), *network.parameters(), *network.buffers()]
    return [(tensor, _version(tensor)) for tensor in tensors]


def _version(tensor: Any) -> int | None:
    try:
        version: int = tensor._version
    except (AttributeError, RuntimeError):  # no tensor, or one that was made in inference mode
        return None
    return version
