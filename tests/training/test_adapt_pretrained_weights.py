"""Weights of a pretraining arrive exactly where they belong, adapted only where that was asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.nnssl import IMPORTS, UNETS, unet_arguments
from torch import nn

from nnunet_lite.exceptions import CheckpointError, PlansError
from nnunet_lite.models.network import build_network
from nnunet_lite.training.adapt_pretrained_weights import (
    PretrainInfo,
    citation_lines,
    load_encoder,
    resize_position_embedding,
    shorten_kernel,
    spread_over_channels,
    token_grid,
)

KINDS = ("ResidualEncoderUNet", "PlainConvUNet")


def unet(kind: str, channels: int = 1, heads: int = 2, **changes: Any) -> nn.Module:
    return build_network(f"{UNETS}.{kind}", unet_arguments(kind, **changes), IMPORTS, channels, heads)


def info_of(network: Any, channels: int = 1, **changes: Any) -> PretrainInfo:
    info = PretrainInfo("p.pth", "ssl", network.key_to_encoder, network.key_to_stem, None, channels, [16] * 3, None)
    return info._replace(**changes)


def copies(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_and_stem_arrive_exactly_and_nothing_else(kind: str) -> None:
    pretrained, network = unet(kind, heads=1), unet(kind, heads=3)
    before = copies(network)
    table = load_encoder(network, pretrained.state_dict(), info_of(pretrained), 1, [8, 16, 16])
    given = pretrained.state_dict()
    for name, tensor in network.state_dict().items():
        own_encoder = name.startswith(("encoder.", "decoder.encoder."))
        assert torch.equal(tensor, given[name] if own_encoder else before[name]), name
    assert any(line.startswith("  copied   encoder.stages: ") for line in table)
    assert any(line.startswith("  skipped  decoder.stages of the checkpoint: ") for line in table)
    assert any(line.startswith("  fresh    decoder.stages of the network: ") for line in table)
    assert not any("adapted" in line or "left" in line for line in table)


@pytest.mark.parametrize("kind", KINDS)
def test_more_channels(kind: str) -> None:
    """The response to one image in every channel is what it was with one channel."""
    pretrained, network = unet(kind), unet(kind, channels=3)
    table = load_encoder(network, pretrained.state_dict(), info_of(pretrained), 3, [8, 16, 16])
    name = f"{network.keys_to_in_proj[0]}.weight"
    old, new = pretrained.state_dict()[name], network.state_dict()[name]
    assert torch.equal(new, old.repeat(1, 3, 1, 1, 1) / 3)
    image = torch.rand(1, 1, 8, 16, 16)
    expected = pretrained.encoder(image)
    for ours, theirs in zip(network.encoder(image.repeat(1, 3, 1, 1, 1)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    (adapted,) = (line for line in table if line.startswith("  adapted "))  # one tensor, whatever its names
    assert ".convs.0.conv.weight: (4, 1, 3, 3, 3) to (4, 3, 3, 3, 3): channels spread" in adapted


def test_fewer_channels_than_in_pretraining() -> None:
    weight = torch.rand(4, 2, 3, 3, 3)
    spread = spread_over_channels(weight, 3)
    assert spread.shape == (4, 3, 3, 3, 3)
    torch.testing.assert_close(spread.sum(1), weight.sum(1))
    torch.testing.assert_close(spread_over_channels(weight, 1)[:, 0], weight.sum(1))


def test_a_file_that_keeps_each_tensor_once_will_do() -> None:
    pretrained, network = unet(KINDS[0]), unet(KINDS[0])
    once = {name: tensor for name, tensor in pretrained.state_dict().items() if "all_modules" not in name}
    table = load_encoder(network, once, info_of(pretrained), 1, [8, 16, 16])
    assert torch.equal(network.state_dict()[name := "encoder.stem.convs.0.conv.weight"], once[name])
    assert not any("not in the checkpoint" in line for line in table)


def test_names_of_the_parts_may_differ() -> None:
    pretrained, network = unet(KINDS[0]), unet(KINDS[0])
    renamed = {name.replace("encoder.", "backbone.", 1): value for name, value in pretrained.state_dict().items()}
    info = info_of(pretrained, key_to_encoder="backbone.stages", key_to_stem="backbone.stem")
    load_encoder(network, renamed, info, 1, [8, 16, 16])
    assert torch.equal(network.encoder.stages[0].blocks[0].conv1.conv.weight, renamed[next(iter(
        name for name in renamed if name.endswith("stages.0.blocks.0.conv1.conv.weight")))])  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    pretrained = unet(KINDS[0])
    weights, info = pretrained.state_dict(), info_of(pretrained)
    with pytest.raises(CheckpointError, match=r"p.pth \(encoder.stages\) do not fit.*missing"):
        load_encoder(unet(KINDS[0], stages=4), weights, info, 1, [8, 16, 16])
    with pytest.raises(CheckpointError, match=r"of another shape: .*\(4, 4, 3, 3, 3\) in the file, \(4, 4, 1, 3, 3\)"):
        load_encoder(unet(KINDS[0], kernel=1), weights, info, 1, [8, 16, 16])
    with pytest.raises(CheckpointError, match=r"no part encoder.stem"):
        load_encoder(nn.Sequential(nn.Conv3d(1, 1, 1)), weights, info._replace(key_to_encoder="0"), 1, [8] * 3)
    with pytest.raises(CheckpointError, match=r"has no weights for encoder.stages; it has: head.weight"):
        load_encoder(unet(KINDS[0]), {"head.weight": torch.zeros(1)}, info, 1, [8, 16, 16])


@pytest.mark.parametrize("stages", [2, 4])
def test_dynamic_takes_what_fits(stages: int) -> None:
    pretrained, network = unet(KINDS[0]), unet(KINDS[0], stages=stages, kernel=1, channels=2)
    before = copies(network)
    table = load_encoder(network, pretrained.state_dict(), info_of(pretrained), 2, [8, 16, 16], dynamic=True)
    given, own = pretrained.state_dict(), network.state_dict()
    stem = "encoder.stem.convs.0.conv.weight"
    assert torch.equal(own[stem], given[stem].repeat(1, 2, 1, 1, 1).mean(2, keepdim=True) / 2)
    name = "encoder.stages.1.blocks.0.conv2.conv.weight"
    assert torch.equal(own[name], given[name])
    text = "\n".join(table)
    assert "channels spread, kernel averaged" in text
    if stages == 4:
        extra = "encoder.stages.3.blocks.0.conv1.conv.weight"
        assert torch.equal(own[extra], before[extra])
        assert f"left     {extra}: not in the checkpoint" in text
    else:
        assert "skipped  encoder.stages of the checkpoint" in text


def test_dynamic_must_find_something() -> None:
    pretrained = unet(KINDS[0])
    with pytest.raises(CheckpointError, match="not one tensor of its encoder encoder.stages fits"):
        load_encoder(unet(KINDS[0]), {"a.b": torch.zeros(1)}, info_of(pretrained), 1, [8, 16, 16], dynamic=True)


def test_kernels_are_averaged_where_the_new_one_has_one_voxel() -> None:
    weight = torch.rand(2, 2, 3, 3, 3)
    torch.testing.assert_close(shorten_kernel(weight, (1, 3, 3)), weight.mean(2, keepdim=True))
    assert shorten_kernel(weight, (3, 3, 3)) is weight


def test_position_embedding() -> None:
    """A linear ramp stays one: the values at the centres of the new tokens."""
    ramp = torch.arange(4.0).reshape(1, 4, 1).repeat(1, 1, 2)
    same = resize_position_embedding(ramp, 4, [32, 8, 8], [32, 8, 8])
    torch.testing.assert_close(same, ramp)
    finer = resize_position_embedding(ramp, 8, [32, 8, 8], [64, 8, 8])
    assert finer.shape == (1, 8, 2)
    torch.testing.assert_close(finer[0, 1:-1, 0], torch.tensor([0.25, 0.75, 1.25, 1.75, 2.25, 2.75]))
    axes = torch.arange(8.0).reshape(1, 2, 2, 2)  # z is the slowest axis of the tokens
    out = resize_position_embedding(axes.reshape(1, 8, 1), 4, [16, 16, 16], [16, 16, 8])
    torch.testing.assert_close(out.flatten(), torch.tensor([0.5, 2.5, 4.5, 6.5]))
    with pytest.raises(CheckpointError, match=r"7 tokens of patches \[16, 16, 16\] cannot be resized"):
        resize_position_embedding(torch.zeros(1, 7, 2), 8, [16] * 3, [16] * 3)


@pytest.mark.parametrize(
    ("tokens", "patch", "grid"),
    [
        (8, [16, 16, 16], [2, 2, 2]),
        (400, [64, 160, 160], [4, 10, 10]),
        (401, [64, 160, 160], None),
        (3200, [64, 160, 160], [8, 20, 20]),
        (8, None, None),
    ],
)
def test_token_grid(tokens: int, patch: Any, grid: Any) -> None:
    assert token_grid(tokens, patch) == grid


def test_plans_say_enough_about_the_pretraining() -> None:
    with pytest.raises(PlansError, match="plans x name no pretrained checkpoint.*--from_scratch"):
        PretrainInfo.from_plans({"plans_name": "x"})
    with pytest.raises(PlansError, match="no usable checkpoint_path, key_to_stem, pt_num_in_channels"):
        PretrainInfo.from_plans({"plans_name": "x", "pretrain_info": {"key_to_encoder": "e"}})


def test_citations_in_any_form() -> None:
    assert citation_lines(None) == []
    assert citation_lines("a\nb") == ["a", "b"]
    assert citation_lines([{"name": "MAE", "bibtex_citations": ["@article{x}"]}]) == ["MAE", "@article{x}"]
