"""In which precision a training computes: what was asked for, as far as the device, network and processor allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import floordiv
from typing import Any

import torch

from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.utilities.device import resolve_precision


def training_precision(
    name: str, device: torch.device, configuration: ConfigurationManager
) -> tuple[torch.dtype | None, str | None]:
    """Autocast type of a training (None: float32 throughout), and a line about it where there is something to say.

    In bf16 on a CPU, oneDNN (torch 2.13 on a processor with AMX) computes wrong gradients of a 3D convolution's weights
    where the first axis of its input is longer than 1 and shorter than its kernel, 2 for kernels of 3: another one each
    time, often NaN, from memory that is not its own. Both memory layouts; other axes, 2D and float32 are not affected.

    Args:
        name: auto, float32, bf16 or fp16.
        configuration: plan of the network.
    """
    precision = resolve_precision(name, device, training=True)
    if precision is not torch.bfloat16 or device.type != "cpu":
        return precision, None
    depth = _unsafe_depth(configuration.patch_size, configuration.network_arch_init_kwargs)
    if depth is None:
        return precision, None
    where = f"this network reduces the patch to {depth} voxels along the first axis"
    if name == "auto":
        return None, f"Training in float32: {where}, where bf16 on a CPU is not reliable"
    return precision, f"WARNING: {where}, where gradients in bf16 on a CPU can be wrong; use --precision float32"


def _unsafe_depth(patch_size: Sequence[int], network: Mapping[str, Any]) -> int | None:
    """Length of the first axis at the first stage of a 3D network that bf16 is not safe for; None if there is none."""
    strides, kernels = network.get("strides"), network.get("kernel_sizes")
    if len(patch_size) != 3 or not isinstance(strides, (list, tuple)):
        return None
    if not isinstance(kernels, (list, tuple)):
        kernels = [kernels or 3] * len(strides)
    depths = list(accumulate([int(patch_size[0]), *map(_first, strides)], floordiv))[1:]
    stages = zip(depths, map(_first, kernels), strict=False)
    return next((depth for depth, kernel in stages if 1 < depth < kernel), None)


def _first(size: Any) -> int:
    """Along the first axis; a plan may have one number for all of them."""
    return int(size[0] if isinstance(size, (list, tuple)) else size)
