"""Another memory layout changes speed, not results; a checkpoint of it loads into a network without it."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_lite.training.cpu_speed import channels_last, use_channels_last


def test_layout() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 4, 3), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, 1, 1))
    data = torch.randn(2, 2, 6, 6, 6)
    expected = network(data).detach()
    use_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert channels_last(data).is_contiguous(memory_format=torch.channels_last_3d)
    assert channels_last(torch.zeros(3)).shape == (3,)
    assert torch.allclose(network(channels_last(data)), expected, atol=1e-5)
