"""Whose rounding it is where predictions differ: sums over tiles against the same sums in float64.

Upstream predicts an image and every output of its network is recorded. From these very outputs the weighted mean is
formed in float64, and by our sliding window in each type; all are compared with the logits that upstream made of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, Bench
from parity_prediction import Row, drive, images_of, model_job
from torch import Tensor

from nnunet_lite.inference.sliding_window_prediction import (
    SlidingWindow,
    add_predictions,
    pad_to_tile,
    weighted_mean,
)
from nnunet_lite.inference.test_time_augmentation import mirror_combinations

ROWS = (
    Row("004", "3d_fullres"),
    Row("004", "3d_fullres", mirroring=False),
    Row("900", "3d_lowres", mirroring=False),
    Row("115", "2d", mirroring=False),
)
RIM = 6


def means_of_copies(outputs: Tensor, mirroring: bool, dtype: torch.dtype) -> Iterator[Tensor]:
    """Mean over the mirrored copies of each tile, flipped back and added in upstream's order: (1, heads, *tile)."""
    axes = mirror_combinations(tuple(range(outputs.ndim - 2)) if mirroring else None)
    for start in range(0, len(outputs), len(axes)):
        total = outputs[start].to(dtype)
        for number, chosen in enumerate(axes[1:], 1):
            total = total + outputs[start + number].to(dtype).flip([axis + 1 for axis in chosen])
        yield (total / len(axes))[None]


def sums(found: dict[str, Any], mirroring: bool, dtype: torch.dtype, factor: int = 1) -> Tensor:
    """Logits (heads, x, y, z) from recorded outputs, summed in a type with the weights times a factor."""
    outputs = torch.from_numpy(found["outputs"])
    tile = outputs.shape[2:]
    image, original = pad_to_tile(torch.from_numpy(found["data"]), tile)
    sliding = SlidingWindow.over(image.shape[1:], tile, 0.5, True, torch.device("cpu"))
    exact = dtype == torch.float64  # of the weights as they are in half precision
    sliding = replace(sliding, weights=factor * (sliding.weights.double() if exact else sliding.weights))
    passes = means_of_copies(outputs, mirroring, torch.float64 if exact else torch.float32)
    total = torch.zeros((outputs.shape[1], *sliding.image_size), dtype=dtype)
    add_predictions(total, image, sliding, lambda _: next(passes), device=torch.device("cpu"))
    return weighted_mean(total, sliding.total_weight(dtype), original)


def line(what: str, logits: Tensor, exact: Tensor) -> str:
    """Largest error and label maps of some sums, beside the exact ones."""
    error = (logits.double() - exact).abs().amax(0)
    inside = torch.zeros(error.shape, dtype=torch.bool)
    inside[tuple(slice(RIM, -RIM) if edge > 3 * RIM else slice(None) for edge in error.shape)] = True
    distance = (logits.double().softmax(0) - exact.softmax(0)).abs().amax(0)
    labels = int((logits.argmax(0) != exact.argmax(0)).sum())
    return (
        f"| {what} | {float(error.max()):.1e} | {float(error[inside].max()):.1e} | {float(distance.max()):.1e} | "
        f"{float(distance[inside].max()):.1e} | {int((distance > 1e-3).sum())} | {labels} of {error.numel()} |"
    )


def main() -> None:
    """One table per model."""
    bench = Bench(__doc__, repeats=1)
    upstream, _ = bench.pair()
    for row in ROWS:
        job = model_job(bench, row)
        if not (Path(job["folder"]) / "fold_0" / "checkpoint_final.pth").is_file():
            drive(bench, upstream, "random_models.py", [job], "models for sums")
        file = bench.work / "tile_outputs.npz"
        images = next(iter(images_of(bench, row).values()))
        arguments = (upstream.package, job["folder"], "0", str(row.mirroring), str(file), *images)
        subprocess.run(
            [str(upstream.python), str(HERE / "drivers" / "tile_outputs.py"), *arguments],
            env=upstream.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        found = dict(np.load(file))
        exact = sums(found, row.mirroring, torch.float64)
        theirs = torch.from_numpy(found["logits"])
        print(f"\n{row.name}: {len(found['outputs'])} passes, logits up to {float(exact.abs().max()):.1f}\n")
        print("| sums | error | inside | of probabilities | inside | over 1e-3 | labels |\n|" + "---|" * 7)
        print(line("upstream", theirs, exact))
        for what, dtype, factor in (
            ("float16, upstream's weights", torch.float16, 1),
            ("float16, weights x 32", torch.float16, 32),
            ("float32", torch.float32, 1),
        ):
            mine = sums(found, row.mirroring, dtype, factor)
            same = float((mine.half() == theirs).float().mean())
            print(line(f"{what} ({same:.5%} equal upstream's)", mine, exact), flush=True)


if __name__ == "__main__":
    sys.exit(main())
