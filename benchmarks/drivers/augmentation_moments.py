"""Run by either interpreter: moments of images and shares of labels in the batches a training would get, as .npz.

usage: augmentation_moments.py PACKAGE PLANS DATASET_JSON CONFIGURATION TRAINER BATCH_SIZE SAMPLES SEED OUTPUT_NPZ
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from augment_samples import training_batches
from image_moments import describe


def main() -> None:
    """Draw batches, describe each sample and save one array per quantity."""
    samples, seed, output = int(sys.argv[7]), int(sys.argv[8]), sys.argv[9]
    torch.set_num_threads(1)
    np.random.seed(seed)
    torch.manual_seed(seed)
    batches = training_batches(*sys.argv[1:4], sys.argv[4:7])
    found: dict[str, list[float]] = {}
    drawn = 0
    while drawn < samples:
        batch = next(batches)
        levels = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        for position, image in enumerate(batch["data"]):
            values = describe(image[0])
            for resolution in (0, len(levels) - 1):
                labels = levels[resolution][position, 0]
                for label in range(-1, 4):
                    values[f"share of label {label}, resolution {resolution}"] = float((labels == label).float().mean())
            for name, value in values.items():
                found.setdefault(name, []).append(value)
            drawn += 1
    np.savez(output, **{name: np.array(values[:samples]) for name, values in found.items()})


if __name__ == "__main__":
    main()
