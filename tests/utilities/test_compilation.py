"""A compiler that fails when a network is first used does not end a training."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.utilities.compilation import with_way_back


def _broken(*arguments: Any) -> Any:
    raise RuntimeError("ptxas not found\nand much more")


def _broken_backward(graph: Any, inputs: Any) -> Any:
    from torch._dynamo.backends.common import aot_autograd

    return aot_autograd(fw_compiler=lambda graph, inputs: graph.forward, bw_compiler=_broken)(graph, inputs)


def _step(network: nn.Module, loss: nn.Module) -> torch.Tensor:
    network.zero_grad()
    value = loss(network(torch.ones(2, 3)), torch.ones(2, 1))
    value.backward()
    return value.detach()


@pytest.mark.parametrize("backend", [_broken, _broken_backward], ids=["forward", "backward"])
@pytest.mark.parametrize("part", ["network", "loss"])
def test_falls_back_once(backend: Any, part: str, caplog: pytest.LogCaptureFixture) -> None:
    torch._dynamo.reset()
    plain, network, loss = nn.Linear(3, 1), nn.Linear(3, 1), nn.MSELoss()
    network.load_state_dict(plain.state_dict())
    expected = _step(plain, loss)
    if part == "network":
        used = [torch.compile(network, backend=backend), loss]
    else:
        used = [network, nn.Sequential()]
        used[1] = _Wrapped(torch.compile(loss, backend=backend))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        values = [with_way_back(lambda: _step(*used), *used) for _ in range(3)]
    assert all(torch.allclose(value, expected) for value in values)
    assert torch.allclose(network.weight.grad, plain.weight.grad)
    (message,) = caplog.messages
    assert "torch.compile failed" in message
    assert "\n" not in message
    assert unwrap(used[0]) is network


class _Wrapped(nn.Module):
    """As deep supervision wraps a loss whose part is compiled."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.loss(output, target)
        return result


def test_errors_of_others_pass_through() -> None:
    def fail() -> None:
        raise ValueError("of the network")

    with pytest.raises(ValueError, match="of the network"):
        with_way_back(fail, torch.compile(nn.Linear(1, 1)), object())
