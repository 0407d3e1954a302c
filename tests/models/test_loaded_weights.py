"""What makes weights be loaded again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nnunet_lite.models.loaded_weights import LoadedWeights

Weights = dict[str, torch.Tensor]


def loaded() -> tuple[nn.Module, Weights, LoadedWeights]:
    network = nn.BatchNorm1d(2)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(weights)
    return network, weights, LoadedWeights(network, weights)


def test_they_stay_while_the_network_is_only_used() -> None:
    network, weights, state = loaded()
    with torch.inference_mode():
        network.eval()(torch.randn(3, 2))
        assert state.still_holds(network, weights)
    assert state.still_holds(network, weights)


def written(network: nn.Module, weights: Weights) -> None:
    weights["weight"].mul_(2)


def exchanged(network: nn.Module, weights: Weights) -> None:
    weights["weight"] = weights["weight"] * 2


def added(network: nn.Module, weights: Weights) -> None:
    weights["more"] = torch.ones(1)


def others_loaded(network: nn.Module, weights: Weights) -> None:
    network.load_state_dict({name: tensor.clone() for name, tensor in weights.items()})


def statistics_of_training(network: nn.Module, weights: Weights) -> None:
    network.train()(torch.randn(3, 2))


def parameter_exchanged(network: nn.Module, weights: Weights) -> None:
    network.weight = nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize(
    "change", [written, exchanged, added, others_loaded, statistics_of_training, parameter_exchanged]
)
def test_they_do_not_hold_after_a_change(change: Callable[[nn.Module, Weights], None]) -> None:
    network, weights, state = loaded()
    change(network, weights)
    assert not state.still_holds(network, weights)


def test_others_are_others() -> None:
    network, weights, state = loaded()
    assert not state.still_holds(network, dict(weights))
    assert not state.still_holds(nn.BatchNorm1d(2), weights)


def test_tensors_that_torch_does_not_watch_are_loaded_each_time() -> None:
    network, _, _ = loaded()
    with torch.inference_mode():
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert not LoadedWeights(network, weights).still_holds(network, weights)
