"""Numbers that describe the intensities of an image."""

from __future__ import annotations

import torch
from torch import Tensor


def describe(channel: Tensor) -> dict[str, float]:
    """Image moments of (*spatial)."""
    values = channel.flatten().double()
    mean, deviation = values.mean(), values.std().clamp(min=1e-9)
    found = {
        "mean": float(mean),
        "deviation": float(deviation),
        "skewness": float(((values - mean) / deviation).pow(3).mean()),
        "zeros": float((values == 0).double().mean()),
    }
    for axis in range(channel.ndim):
        found[f"gradient energy {axis}"] = float(channel.diff(dim=axis).double().square().mean())
    quantiles = torch.quantile(values, torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0], dtype=torch.float64))
    return found | {f"quantile {q}": float(v) for q, v in zip((0, 5, 50, 95, 100), quantiles, strict=True)}
