"""A network made faster for prediction on a CPU, for as long as a `with` block lasts: same weights, same function.

It is for inference mode: values are overwritten, so nothing can be differentiated.

Where a `Sequential` is a convolution, instance norm and leaky ReLU, as in nnU-Net's networks, its steps are ours.
Everything else computes as it always did.

- A convolution of single voxels, such as the last one, is a product of matrices; torch would copy its input twice.
- Convolutions of few voxels go to oneDNN, too; torch has a plain loop for those, half as fast.
- 3D networks have the channels innermost in memory (channels last), as oneDNN computes, so that nothing is reordered.
- The decoder lets go of maps that it has used, see `lean_decoder`.
- Norm and activation go over a part of the image while it is in the cache. torch's own instance norm is five times
  slower, and its batch norm with channels last adds up in float32 from end to end: five digits of eight are left.

Measured with one thread (AMD with AVX-512; processor seconds, best of four), one tile: 3d_fullres of Dataset004 in
float32 / bf16 0.438 / 0.200 s before, 0.379 / 0.183 s after; 25 classes, 32x96x96: 1.94 / 0.89 and 1.62 / 0.78 s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_lite.inference.lean_decoder import LAYOUTS, is_hooked, lean_decoder_of

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)
_BLOCK = 2**17  # numbers normalized at once: half a MiB in float32, what a core's cache holds


def with_channels_last(images: Tensor) -> Tensor:
    """A batch (b, c, ...) with the channels innermost in memory."""
    laid = _laid_out(images)
    if laid.ndim in LAYOUTS and laid.shape[1] == 1:  # is of either layout: its strides must tell which is meant
        return laid.as_strided(laid.shape, (laid.stride(0), 1, *laid.stride()[2:]))
    return laid


def _laid_out(tensor: Tensor) -> Tensor:
    wanted = LAYOUTS.get(tensor.ndim)
    return tensor if wanted is None else tensor.contiguous(memory_format=wanted)


@contextlib.contextmanager
def faster_network(network: nn.Module, *, device: torch.device, channels_last: bool) -> Iterator[None]:
    """Let a network in evaluation mode compute faster within the block; names and values of its weights never change.

    Args:
        network: any; parts that are not known, and compiled networks, stay as they are.
        device: where it computes; off the CPU nothing but the layout of its weights changes.
        channels_last: lay the weights out so. Its input must have that layout, too.
    """
    if channels_last:
        with torch.inference_mode(False):  # or the weights could not be trained any more
            for parameter in network.parameters():
                parameter.data = _laid_out(parameter.data)
    changed: list[nn.Module] = []
    try:
        if device.type == "cpu" and not hasattr(network, "_orig_mod"):
            for module in network.modules():
                forward = _block_of(module) or _pointwise_of(module)
                if forward is not None:
                    module.__dict__["forward"] = forward
                    changed.append(module)
            lean = lean_decoder_of(network)
            if lean is not None:
                decoder, decode = lean
                decoder.__dict__["forward"] = decode
                changed.append(decoder)
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _block_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What computes a `Sequential` of convolution, instance norm and perhaps leaky ReLU; None for anything else."""
    if type(module) is not nn.Sequential or module.training or "forward" in module.__dict__:
        return None
    parts = [part for part in module if not isinstance(part, _DROPOUTS)]
    if len(parts) not in (2, 3) or any(is_hooked(part) for part in (module, *module)):
        return None
    convolution, norm = parts[:2]
    known = type(convolution) in _CONVOLUTIONS and type(norm) in _NORMS and not norm.track_running_stats
    if not known or (len(parts) == 3 and type(parts[2]) is not nn.LeakyReLU):
        return None
    slope = cast("float", parts[2].negative_slope) if len(parts) == 3 else None
    return partial(_compute_block, convolution, norm, slope)


def _pointwise_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What computes a convolution of single voxels, such as a network's last one; None for anything else."""
    if type(module) not in _CONVOLUTIONS or is_hooked(module) or "forward" in module.__dict__:
        return None
    convolution: Any = module
    edges = {*convolution.kernel_size, *convolution.stride, convolution.groups}
    if edges != {1} or set(convolution.padding) != {0}:
        return None
    return partial(_compute_pointwise, convolution, module.forward)


def _compute_pointwise(convolution: Any, otherwise: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """As a product of matrices: from channels innermost to channels first.

    After a network's last convolution that is what the sums over tiles have; others are followed by their norm.
    """
    if len(image) != 1 or not _is_channels_last(image):
        return otherwise(image)
    weight, rows = convolution.weight.flatten(1), image[0].flatten(1)
    product = weight @ rows if convolution.bias is None else torch.addmm(convolution.bias[:, None], weight, rows)
    return product.view(1, -1, *image.shape[2:])


def _compute_block(convolution: Any, norm: Any, slope: float | None, image: Tensor) -> Tensor:
    values = _convolve(convolution, image)
    if norm.weight is None:
        normalized = norm(values)
    elif values.dtype == torch.float32 and _is_channels_last(values):
        for one in values:
            _normalize_rows(one.flatten(1).t(), norm, 1.0 if slope is None else slope)
        return values
    elif len(values) == 1 and _is_channels_last(values) and values[0, 0].numel() > 1:
        normalized = F.batch_norm(values, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    else:
        normalized = F.group_norm(values, values.shape[1], norm.weight, norm.bias, norm.eps)
    return normalized if slope is None else F.leaky_relu_(normalized, slope)


def _convolve(convolution: Any, image: Tensor) -> Tensor:
    exact = image.dtype == convolution.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    onednn: Any = torch.backends.mkldnn
    if exact and plain and onednn.is_available() and onednn.enabled:
        names = ("weight", "bias", "padding", "stride", "dilation", "groups")
        return torch.mkldnn_convolution(image, *(getattr(convolution, name) for name in names))
    return cast("Tensor", convolution(image))


def _is_channels_last(values: Tensor) -> bool:
    return values.shape[1] > 1 and values.is_contiguous(memory_format=LAYOUTS[values.ndim])


def _normalize_rows(rows: Tensor, norm: Any, slope: float) -> None:
    """Instance norm and leaky ReLU of one image, in place: (voxels, channels), contiguous, float32."""
    blocks = torch.split(rows, max(1, _BLOCK // rows.shape[1]))
    mean = rows.mean(0)
    squares = torch.zeros_like(mean)
    differences = torch.empty_like(blocks[0])  # one for all: fresh memory costs more than the subtraction
    for block in blocks:
        difference = torch.sub(block, mean, out=differences[: len(block)])
        squares += difference.mul_(difference).sum(0)
    scale = norm.weight * torch.rsqrt(squares / len(rows) + norm.eps)
    shift = norm.bias - mean * scale
    for block in blocks:
        torch.addcmul(shift, block, scale, out=block)
        if slope != 1:
            F.leaky_relu_(block, slope)
