"""A network computes the same, faster, within a block; afterwards it is as before."""

from __future__ import annotations

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_lite.inference import faster_networks
from nnunet_lite.inference.faster_networks import faster_network, with_channels_last

CPU = torch.device("cpu")


def network_of(dimensions, residual=False, **changes):
    torch.manual_seed(0)
    own = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    arguments = {
        "input_channels": 2,
        "n_stages": 3,
        "features_per_stage": [8, 16, 24],
        "conv_op": nn.Conv3d if dimensions == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        own: [1, 2, 1],
        "num_classes": 3,
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        **changes,
    }
    network = (ResidualEncoderUNet if residual else PlainConvUNet)(**arguments).eval()
    for parameter in network.parameters():  # so that norms have weights that matter
        parameter.data += 0.1 * torch.rand(parameter.shape)
    return network


def counted(monkeypatch):
    """How often a block of ours was used."""
    calls, compute = [], faster_networks._compute_block

    def count(*arguments):
        calls.append(1)
        return compute(*arguments)

    monkeypatch.setattr(faster_networks, "_compute_block", count)
    return calls


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_computes_the_same(dimensions, residual, batch, channels_last, monkeypatch):
    calls = counted(monkeypatch)
    network = network_of(dimensions, residual)
    weights, names = copy.deepcopy(network.state_dict()), list(network.state_dict())
    image = 3 + 5 * torch.rand(batch, 2, *(16, 12, 20)[:dimensions])
    with torch.inference_mode():
        expected = copy.deepcopy(network).double()(image.double())
        with faster_network(network, device=CPU, channels_last=channels_last):
            found = network(with_channels_last(image) if channels_last else image)
            assert calls
        used = len(calls)
        assert (found - expected).abs().max() < 3e-5 * expected.abs().max()
        assert (network(image) - expected).abs().max() < 3e-5 * expected.abs().max()
    assert len(calls) == used
    assert list(network.state_dict()) == names
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_of_single_voxels(dimensions, bias):
    torch.manual_seed(1)
    convolution = (nn.Conv3d if dimensions == 3 else nn.Conv2d)(6, 5, 1, bias=bias)
    network, image = nn.Sequential(nn.Identity(), convolution).eval(), torch.randn(1, 6, *(4, 7, 5)[:dimensions])
    with torch.inference_mode():
        expected = convolution(image)
        with faster_network(network, device=CPU, channels_last=True):
            assert "forward" in convolution.__dict__
            found = network(with_channels_last(image))
            assert found.is_contiguous() and torch.allclose(found, expected, atol=1e-6)
            assert torch.allclose(network(image), expected, atol=1e-6)
            assert network(torch.cat([image, image])).shape[0] == 2
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.allclose(network(with_channels_last(image)).float(), expected, atol=0.05)
        assert "forward" not in convolution.__dict__


@pytest.mark.parametrize("other", [{"stride": 2}, {"padding": 1}, {"kernel_size": 3}, {"groups": 2}])
def test_other_convolutions_stay_as_they_are(other):
    convolution = nn.Conv3d(4, 4, **{"kernel_size": 1, **other}).eval()
    with faster_network(nn.Sequential(convolution), device=CPU, channels_last=True):
        assert "forward" not in convolution.__dict__


@pytest.mark.parametrize("shape", [(1, 1, 6, 7), (1, 1, 5, 6, 7), (3, 1, 5, 6, 7), (2, 1, 1, 1, 1)])
def test_one_channel_goes_on_with_channels_last(shape):
    """Else the first convolution's output, as large as any, would be laid out anew."""
    image = torch.randn(shape)
    laid = with_channels_last(image)
    assert torch.equal(laid, image) and laid.stride(1) == 1
    convolution = (nn.Conv3d if len(shape) == 5 else nn.Conv2d)(1, 4, 3, padding=1)
    with torch.inference_mode():
        found, expected = faster_networks._convolve(convolution, laid), convolution(image)
    assert torch.allclose(found, expected, atol=1e-6)
    layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    assert found[0].numel() == 4 or found.is_contiguous(memory_format=layout)


def test_mean_far_from_zero_costs_no_digits():
    """Squares of numbers far from zero would have no digits left for the variance."""
    torch.manual_seed(0)
    norm = nn.InstanceNorm3d(8, affine=True)
    block = nn.Sequential(nn.Conv3d(1, 8, 1), norm, nn.LeakyReLU(0.2)).eval()
    image = 1000 + torch.rand(1, 1, 32, 64, 64)
    with torch.inference_mode(), faster_network(block, device=CPU, channels_last=True):
        found = block(with_channels_last(image))
    values = block[0](image).double()
    mean, variance = (f(values, dim=(2, 3, 4), keepdim=True) for f in (torch.mean, torch.var))
    expected = nn.functional.leaky_relu((values - mean) / torch.sqrt(variance + norm.eps), 0.2)
    assert (found - expected).abs().max() < 2e-3  # of the convolution's own rounding at 1000


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mixed_precision_stays_as_close_to_float32(dimensions):
    network = network_of(dimensions)
    image = torch.rand(1, 2, *(16, 12, 20)[:dimensions])
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            usual = network(image).float()
            with faster_network(network, device=CPU, channels_last=True):
                ours = network(with_channels_last(image)).float()
    assert (ours - exact).abs().mean() < 1.5 * (usual - exact).abs().mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_op": nn.BatchNorm3d, "norm_op_kwargs": {"eps": 1e-5}},
        {"norm_op": None, "norm_op_kwargs": None},
        {"nonlin": nn.ReLU},
        {"norm_op_kwargs": {"track_running_stats": True}},
    ],
)
def test_unknown_parts_stay_as_they_are(changes, monkeypatch):
    calls = counted(monkeypatch)
    network = network_of(3, **changes)
    image = torch.rand(1, 2, 8, 8, 8)
    with torch.inference_mode():
        expected = network(image)
        with faster_network(network, device=CPU, channels_last=True):
            assert torch.allclose(network(with_channels_last(image)), expected, atol=1e-4)
    assert not calls


def test_norms_without_weights_and_hooks(monkeypatch):
    calls = counted(monkeypatch)
    network = network_of(3, norm_op_kwargs={"affine": False})
    image, seen = torch.rand(1, 2, 8, 8, 8), []
    with torch.inference_mode():
        expected = network(image)
        with faster_network(network, device=CPU, channels_last=True):
            assert torch.allclose(network(with_channels_last(image)), expected, atol=1e-4)
            assert calls
        for module in network.modules():
            if isinstance(module, nn.InstanceNorm3d):
                module.register_forward_hook(lambda *arguments: seen.append(1))
        calls.clear()
        with faster_network(network, device=CPU, channels_last=True):
            network(with_channels_last(image))
    assert seen and not calls


def test_network_can_be_trained_afterwards():
    network = network_of(3)
    with torch.inference_mode(), faster_network(network, device=CPU, channels_last=True):
        network(with_channels_last(torch.rand(1, 2, 8, 8, 8)))
    network.train()
    network(torch.rand(1, 2, 8, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_training_mode_is_left_alone(monkeypatch):
    calls = counted(monkeypatch)
    network = network_of(3).train()
    with faster_network(network, device=CPU, channels_last=False):
        network(torch.rand(1, 2, 8, 8, 8))
    assert not calls
