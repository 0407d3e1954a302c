"""Where NaN or infinity comes from: the weights, the images, a layer, the loss or a gradient, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.utilities.distributed import all_gather_objects

_RATE = "Lower the learning rate (--lr), or look at these cases"


class Cause(NamedTuple):
    """What is wrong first, and what to do about it; without full stops."""

    what: str
    advice: str


def report_cause(network: nn.Module, loss: nn.Module, data: Tensor, target: Any, cases: Sequence[str]) -> Cause:
    """Compute a batch once more in float32 and find the first number that is not finite.

    All ranks of a group call this together; the finding of the lowest rank that has one is everybody's. Gradients of
    the network are overwritten.

    Args:
        network: compiled and distributed networks are looked into.
        loss: as the trainer's.
        data: images (b, c, ...) on the network's device.
        target: what the loss takes.
        cases: name of each sample, as far as known.
    """
    network = unwrap(network)
    weight, image = first_lost_weight(network), _first_bad_image(data, cases)
    layer = _first_bad_layer(network, data)  # on every rank, since normalization may talk to the others
    found: Cause | None = None
    if weight is not None:
        found = Cause(f"{weight} is not finite", "Start from other weights, or go on from an earlier checkpoint")
    elif image is not None:
        found = Cause(f"{image} holds NaN or infinity", "Correct that case and preprocess it again")
    elif layer is not None:
        found = Cause(f"first in the output of layer {layer}", _RATE)
    found = _agreed(found)
    return found or _agreed(_cause_behind_the_network(network, loss, data, target)) or Cause("it came only once", _RATE)


def first_lost_weight(network: nn.Module) -> str | None:
    """The first weight or running statistic that is not finite; None if all are."""
    network = unwrap(network)
    for kind, tensors in (("weight", network.named_parameters()), ("statistic", network.named_buffers())):
        for name, tensor in tensors:
            if not _finite(tensor):
                return f"{kind} {name} of the network"
    return None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())


def _first_bad_image(data: Tensor, cases: Sequence[str]) -> str | None:
    for position, image in enumerate(data):
        if not _finite(image):
            return f"the image of case {cases[position]}" if position < len(cases) else f"image {position} of the batch"
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _first_bad_layer(network: nn.Module, data: Tensor) -> str | None:
    """Name and kind of the module whose output is the first that is not finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if not found and not all(_finite(tensor) for tensor in _tensors(output)):
                found.append(f"{name or 'network'} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(data)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _cause_behind_the_network(network: nn.Module, loss: nn.Module, data: Tensor, target: Any) -> Cause | None:
    """The loss of finite outputs, or the first gradient on the way back."""
    network.zero_grad(set_to_none=True)
    value = loss(network(data), target)
    if not _finite(value):
        return Cause(f"the outputs of the network are finite, their {type(loss).__name__} is not", "Look at the loss")
    value.backward()
    names = [
        name for name, weight in network.named_parameters() if weight.grad is not None and not _finite(weight.grad)
    ]
    return Cause(f"first in the gradient of {names[-1]}", _RATE) if names else None


def _agreed(found: Cause | None) -> Cause | None:
    """The finding of the lowest rank that has one."""
    return next((Cause(*one) for one in all_gather_objects(found) if one is not None), None)
