"""A decoder that holds less computes the same."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from helpers.allocated import Allocated
from torch import Tensor, nn

from nnunet_lite.inference import faster_networks
from nnunet_lite.inference.faster_networks import faster_network, with_channels_last
from nnunet_lite.inference.lean_decoder import lean_decoder_of

CPU = torch.device("cpu")


def unet(
    axes: int, *, residual: bool = False, supervised: bool = False, features: tuple[int, ...] = (8, 16, 32)
) -> Any:
    torch.manual_seed(0)
    convolution, norm = ((nn.Conv2d, nn.InstanceNorm2d), (nn.Conv3d, nn.InstanceNorm3d))[axes - 2]
    kind = ResidualEncoderUNet if residual else PlainConvUNet
    stages = len(features)
    arguments = (2, stages, features, convolution, 3, [1] + [2] * (stages - 1), [2] * stages, 3, [2] * (stages - 1))
    settings = {"norm_op": norm, "norm_op_kwargs": {"affine": True, "eps": 1e-5}, "conv_bias": True}
    more = {"nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}, "deep_supervision": supervised}
    return kind(*arguments, **settings, **more).eval()


def both(network: Any, image: Tensor, monkeypatch: pytest.MonkeyPatch, *, bf16: bool = False) -> tuple[Any, Any]:
    """Results and the most bytes, without and with the lean decoder: ((result, most), (result, most))."""
    found = []
    for lean in (False, True):
        with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
            if not lean:
                patch.setattr(faster_networks, "lean_decoder_of", lambda _: None)
            stack.enter_context(torch.inference_mode())
            stack.enter_context(faster_network(network, device=CPU, channels_last=True))
            if bf16:
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            counted = stack.enter_context(Allocated())
            found.append((network(with_channels_last(image)), counted.most))
    return found[0], found[1]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_same_from_less(
    monkeypatch: pytest.MonkeyPatch, axes: int, residual: bool, images: int, bf16: bool
) -> None:
    image = torch.randn((images, 2, *(32, 24, 16)[:axes]))
    (plain, much), (lean, little) = both(unet(axes, residual=residual), image, monkeypatch, bf16=bf16)
    assert torch.equal(plain, lean) and plain.dtype == lean.dtype
    assert little < much


def test_the_largest_maps_exist_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randn((1, 2, 32, 32, 32))
    (_, much), (_, little) = both(unet(3, features=(32, 32)), image, monkeypatch)
    one = 4 * 32 * image[0, 0].numel()
    assert much > 4.9 * one and little < 3.7 * one


def test_without_the_block_it_is_as_before() -> None:
    network = unet(3)
    image = torch.randn((1, 2, 16, 16, 16))
    with torch.inference_mode():
        expected = network(image)
        with faster_network(network, device=CPU, channels_last=False):
            assert "forward" in network.decoder.__dict__
            assert torch.allclose(network(image), expected, atol=1e-5)
        assert "forward" not in network.decoder.__dict__
        assert torch.equal(network(image), expected)


def test_what_must_be_differentiated_or_supervised_is_left_alone() -> None:
    network, image = unet(2, supervised=True), torch.randn((1, 2, 16, 16))
    found = lean_decoder_of(network)
    assert found is not None
    network.decoder.__dict__["forward"] = found[1]
    with torch.inference_mode():
        assert len(network(image)) == 2
    network.decoder.deep_supervision = False
    network(image).sum().backward()
    assert all(weight.grad is not None for name, weight in network.named_parameters() if "seg_layers.0" not in name)


class Own(PlainConvUNet):
    """Somebody's network, which may use its skip connections again."""


def test_other_networks_are_left_alone() -> None:
    network = unet(2)
    network.__class__ = Own
    assert lean_decoder_of(network) is None and lean_decoder_of(nn.Conv2d(1, 1, 1)) is None
    network = unet(2)
    network.decoder.register_forward_hook(lambda *_: None)
    assert lean_decoder_of(network) is None
