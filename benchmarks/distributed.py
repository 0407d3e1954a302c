"""The same training by 1, 2, ... processes: the largest difference of its curves, and seconds per iteration.

Runs on any machine: on the CPU with gloo, on GPUs with NCCL (as many of them as the largest number given). The dataset
must be preprocessed in nnUNet_preprocessed; each number gets a results folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

CURVES = ("train_losses", "val_losses", "mean_fg_dice")
TRAIN = "import sys; from nnunet_lite.cli.training import train_entry; sys.exit(train_entry())"


def train(number: int, results: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Curves of a training by `number` processes, one dictionary per epoch."""
    command: list[str] = [sys.executable, "-c", TRAIN, args.dataset, args.configuration, "0", "-tr", args.trainer]
    lengths = ["--epochs", str(args.epochs), "--iterations", str(args.iterations), "--seed", str(args.seed)]
    rest = ["-device", args.device, "--precision", args.precision, "--overwrite", "-num_gpus", str(number)]
    environment = {**os.environ, "nnUNet_results": str(results)}
    finished = subprocess.run([*command, *lengths, *rest], env=environment, stdout=subprocess.DEVNULL, check=False)
    if finished.returncode:
        sys.exit(f"The training by {number} processes ended with exit code {finished.returncode}")
    (metrics,) = results.rglob("metrics.jsonl")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def seconds_per_iteration(epochs: Sequence[dict[str, Any]], iterations: int) -> float:
    """Median over epochs, the first left out where there are others (workers start, caches fill, kernels compile)."""
    return median(epoch["seconds"] for epoch in epochs[1:] or epochs) / (iterations + max(1, round(iterations / 5)))


def difference(curve: str, one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """Largest absolute difference of a curve; 0 where both have no value."""
    pairs = [(a[curve], b[curve]) for a, b in zip(one, other, strict=True)]
    return max(0.0 if str(a) == str(b) else abs(a - b) for a, b in pairs)


@contextlib.contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or a temporary one."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Train with each number of processes and compare with the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("-tr", "--trainer", default="nnUNetTrainer")
    parser.add_argument("-device", "--device", default="cuda")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", default="float32", help="mixed precision makes curves differ by its rounding")
    parser.add_argument("--work", type=Path, default=None, help="folder for the results, kept")
    args = parser.parse_args(argv)
    print("| processes | s per iteration | speed-up |", *(f" {curve} |" for curve in CURVES), sep="")
    print("|---" * (3 + len(CURVES)), "|", sep="")
    first: list[dict[str, Any]] = []
    with work_folder(args.work) as folder:
        for number in args.processes:
            epochs = train(number, folder / f"processes_{number}", args)
            first = first or epochs
            times = [seconds_per_iteration(run, args.iterations) for run in (first, epochs)]
            apart = [f" {difference(curve, first, epochs):.1e} |" for curve in CURVES]
            print(f"| {number} | {times[1]:.3f} | {times[0] / times[1]:.2f} |", *apart, sep="", flush=True)


if __name__ == "__main__":
    main()
