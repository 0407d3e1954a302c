"""Probabilities at image resolution one channel at a time, as the `.npz` has them: no array of classes x voxels.

Two passes over the logits, which are small: the first finds labels and, per voxel, the logarithm of the sum that
softmax divides by; the second interpolates each channel by itself. Interpolating twice costs a tenth of compressing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.inference.logit_reduction import for_each_block, reduce_logits
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import InterpolationPlan
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.npz_stream import npz_stream


def export_labels_and_probabilities(
    logits: Tensor,
    plan: InterpolationPlan,
    label_manager: LabelManager,
    labels: NDArray[Any],
    inside: Callable[[NDArray[Any]], NDArray[Any]],
    file: PathLike,
    threads: int | None = None,
) -> None:
    """Write labels, and probabilities to a compressed `.npz`.

    Holds two float32 numbers per voxel of the image besides what `reduce_logits` needs.

    Args:
        logits: (heads, x, y, z) on the CPU.
        plan: brings them to the shape of the cropped image.
        label_manager: with the default nonlinearity, see `has_default_nonlinearity`.
        labels: (d0, d1, d2) of the image, zero; written where the crop was.
        inside: view of an array of the image's shape in the network's geometry: transposed, cropped.
        file: with (heads, d0, d1, d2) in float32; outside the crop background is certain.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
    """
    threads = threads or torch.get_num_threads()
    labels_inside = inside(labels)
    softmax = not label_manager.has_regions
    log_of_sum = np.empty(labels_inside.shape, np.float32) if softmax else None
    reduce_logits(logits, plan, label_manager, labels_inside, None, threads, log_of_sum)
    channel = np.zeros(labels.shape, np.float32)
    with npz_stream(file, "probabilities", (len(logits), *labels.shape), threads) as stream:
        for head in range(len(logits)):
            channel.fill(1 if softmax and head == 0 else 0)
            write_probabilities(logits[head : head + 1], plan, log_of_sum, inside(channel), threads)
            stream.write(channel)


def write_probabilities(
    logits: Tensor,
    plan: InterpolationPlan,
    log_of_sum: NDArray[np.float32] | None,
    probabilities: NDArray[np.float32],
    threads: int | None = None,
) -> None:
    """Interpolate one channel of logits and write its probabilities.

    Args:
        logits: (1, x, y, z).
        plan: see `reduce_logits`.
        log_of_sum: (x_out, y_out, z_out) for softmax, see there; None for sigmoid.
        probabilities: (x_out, y_out, z_out), written; may be a view.
    """

    def block(index: int, rows: slice, values: Tensor) -> None:
        if log_of_sum is None:
            probabilities[index, rows] = values[0].sigmoid().numpy()
        else:
            probabilities[index, rows] = np.exp(values[0].numpy() - log_of_sum[index, rows])

    def repeat(index: int, rows: slice) -> None:
        probabilities[index, rows] = probabilities[index - 1, rows]

    for_each_block(logits, plan, block, repeat, threads)
