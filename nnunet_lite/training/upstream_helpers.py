"""Small functions that users' trainers import from upstream's utilities; nothing here needs them itself."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from nnunet_lite.configuration import num_processes_data_augmentation as get_allowed_n_proc_DA

__all__ = ["dummy_context", "get_allowed_n_proc_DA", "softmax_helper_dim0"]


def softmax_helper_dim0(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the first axis: logits (c, ...) of one case."""
    return torch.softmax(x, 0)


class dummy_context(nullcontext[None]):
    """Does nothing; stands where autocast stands on a GPU."""
