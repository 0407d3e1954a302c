"""The decoder of a U-Net that lets go of what it has used: the largest maps of a tile exist once, not three times.

The decoder of dynamic-network-architectures holds every skip connection, and the joined maps of a stage, until it ends.
Of a tile of 64x160x160 voxels with 32 features at full size (210 MB a map in float32) that is five maps at once in the
last stage; here it is three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes


def lean_decoder_of(network: nn.Module) -> tuple[nn.Module, Callable[[list[Tensor]], Any]] | None:
    """The decoder of a U-Net from dynamic-network-architectures, and what computes it; None for any other network.

    What it computes is the same, bit by bit. It empties the list of skip connections, which is safe in these networks
    alone: nothing in them looks at the list again.
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
    from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder

    if type(network) not in (PlainConvUNet, ResidualEncoderUNet) or "forward" in network.__dict__:
        return None
    decoder: Any = network.decoder
    if type(decoder) is not UNetDecoder or "forward" in decoder.__dict__ or is_hooked(network) or is_hooked(decoder):
        return None
    return decoder, partial(_decode, decoder, decoder.forward)


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody looks at what a module gets or gives, who would not be called by another forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _decode(decoder: Any, otherwise: Callable[[list[Tensor]], Any], skips: list[Tensor]) -> Any:
    """Logits of the finest stage; deep supervision, and what must be differentiated, is left to the decoder."""
    if decoder.deep_supervision or torch.is_grad_enabled() or type(skips) is not list:
        return otherwise(skips)
    image = skips.pop()
    for upsample, stage in zip(decoder.transpconvs, decoder.stages, strict=True):
        held = [image]
        del image
        image = _joined(upsample, held, skips)
        for block in _blocks_of(stage):
            image = block(image)
    return decoder.seg_layers[-1](image)


def _blocks_of(stage: Any) -> list[nn.Module]:
    """The steps of a stage one by one, so that the first one's input need not wait for the last."""
    from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks

    known = type(stage) is StackedConvBlocks and not is_hooked(stage) and not is_hooked(stage.convs)
    return list(stage.convs) if known else [stage]


def _joined(upsample: Any, held: list[Tensor], skips: list[Tensor]) -> Tensor:
    """`torch.cat((upsample(image), skip), 1)`, in which each of the three is gone as soon as it is copied.

    In float32 torch's transposed convolution has the channels outermost, and so would what `cat` joins: the convolution
    after it would copy all of it into the layout it computes in, which the result has here from the start.

    Args:
        held: the image alone; emptied.
        skips: the last one is used and taken away.
    """
    channels = upsample.out_channels
    skip = skips.pop()
    dtype = _dtype_of_result(held[0])
    layout = LAYOUTS.get(skip.ndim)
    if layout is None or skip.dtype != dtype or skip.shape[1] < 2 or not skip.is_contiguous(memory_format=layout):
        return torch.cat((upsample(held.pop()), skip), 1)
    shape = (skip.shape[0], channels + skip.shape[1], *skip.shape[2:])
    joined = torch.empty(shape, dtype=dtype, device=skip.device, memory_format=layout)
    joined[:, channels:].copy_(skip)
    del skip
    image = upsample(held.pop())
    if image.dtype != dtype or image.shape[2:] != joined.shape[2:]:
        return torch.cat((image, joined[:, channels:]), 1)
    joined[:, :channels].copy_(image)
    return joined


def _dtype_of_result(image: Tensor) -> torch.dtype:
    """Of a convolution of this image."""
    kind = image.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype
