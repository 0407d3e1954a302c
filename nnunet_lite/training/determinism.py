"""The seed of a training, and whether torch may choose faster algorithms whose results differ from run to run."""

from __future__ import annotations

import os
from typing import Any

import torch

from nnunet_lite.utilities.distributed import all_gather_objects

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # read by cuBLAS when it starts


def common_seed(seed: int | None) -> int:
    """The given seed; without one, what the first of all processes draws."""
    return int(all_gather_objects(int(torch.randint(2**31, ())))[0]) if seed is None else seed


def set_determinism(deterministic: bool, device: torch.device) -> None:
    """Choose reproducible algorithms, or (the default, as upstream) the fastest ones found by trying.

    On a CPU equal seeds then give equal weights, bit for bit, with the same number of threads (OMP_NUM_THREADS) on the
    same kind of processor. On a GPU torch warns of operations that have no reproducible algorithm.
    """
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if not deterministic:
        return
    torch.backends.cudnn.deterministic = True
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    options: Any = torch.utils.deterministic
    options.fill_uninitialized_memory = False  # a search for bugs, which costs time
