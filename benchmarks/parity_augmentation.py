"""Two-sample tests of ours against upstream: what is drawn, and what comes out; exit code 1 if any fails.

Every row of the default pipeline and of DA5 is called by itself on images made to show what it drew (its rate, its
parameters, what channels and axes share), for a 3D, an anisotropic (dummy 2D) and a 2D patch. Then the batches of
real trainings are compared: image moments and label shares. Holm's correction covers all tests of a run together.
What upstream did is kept (in --work) for the next run with the same seed and number of samples.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from augmentation import HIPPOCAMPUS, TORSO, provide
from common import HERE, Bench, Side
from two_sample import Test, categories, continuous, format_table, rejected

WHOLE = [(HIPPOCAMPUS, "3d_fullres", 9), (HIPPOCAMPUS, "2d", 100), (TORSO, "2d", 20)]
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS"), "1")


def probes(bench: Bench, side: Side, seed: int) -> dict[str, Any]:
    """Results of all probes of a side."""
    output = side.folder / f"probes_{bench.args.samples}_{seed}.npz"
    arguments = (side.package, bench.args.samples, seed, output)
    if side is bench.ours or not output.exists():
        side.run("python", HERE / "drivers" / "augmentation_probes.py", *arguments, **THREADS)
    return dict(np.load(output))


def batches(bench: Bench, side: Side, seed: int, dataset: str, configuration: str, batch_size: int) -> dict[str, Any]:
    """Moments of the batches of a side."""
    folder = side.preprocessed / dataset
    output = side.folder / f"moments_{configuration}_{dataset}_{bench.args.samples}_{seed}.npz"
    documents = (folder / "nnUNetPlans.json", folder / "dataset.json")
    rest = (configuration, "nnUNetTrainer", batch_size, bench.args.samples, seed, output)
    script = HERE / "drivers" / "augmentation_moments.py"
    one_process = {**THREADS, "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    if side is bench.ours or not output.exists():
        side.run("python", script, side.package, *documents, *rest, **one_process)
    return dict(np.load(output))


def compare(what: str, upstream: dict[str, Any], ours: dict[str, Any]) -> list[Test]:
    """Tests of all quantities; the end of a name tells which kind (see augmentation_probes.py)."""
    if upstream.keys() != ours.keys():
        raise SystemExit(f"{what}: the sides differ in {sorted(upstream.keys() ^ ours.keys())}")
    tests = []
    for name, theirs in upstream.items():
        title = f"{what}{name}"
        if name.endswith("="):
            tests.append(identical(title[:-1], theirs, ours[name]))
        elif name.endswith("#"):
            tests.append(categories(title[:-1], theirs, ours[name]))
        else:
            tests.append(continuous(title, theirs.round(4), ours[name].round(4)))  # values that occur often are equal
    return tests


def identical(what: str, upstream: Any, ours: Any) -> Test:
    """Not a test of chance: whether numbers agree one by one; labels may differ in one voxel of 10 000 (rounding)."""
    difference = np.abs(upstream.astype(np.float64) - ours.astype(np.float64))
    if np.issubdtype(upstream.dtype, np.floating):
        effect, limit, unit = float(difference.max()), 1e-3, "largest difference"
    else:
        effect, limit, unit = float((difference > 0).mean()), 1e-4, "share of voxels that differ"
    return Test(what, unit, f"{upstream.size} voxels", f"{effect:.2g}", 1.0 if effect <= limit else 0.0, effect)


def main() -> None:
    """Compare and print; failures come last."""
    bench = Bench(
        __doc__,
        ("--samples", {"type": int, "default": 2000, "help": "per side, 100 or more (default: %(default)s)"}),
        ("--seed", {"type": int, "default": 1}),
        ("--level", {"type": float, "default": 0.01, "help": "chance of a false alarm per run (default: %(default)s)"}),
        ("--preprocessed", {"type": Path, "help": "nnUNet_preprocessed made by ours, only read"}),
        ("--without-batches", {"action": "store_true", "dest": "without_batches", "help": "only the probes"}),
        repeats=1,
    )
    upstream, ours = bench.pair()
    seed = 2 * bench.args.seed
    tests = compare("", probes(bench, upstream, seed), probes(bench, ours, seed + 1))
    for dataset, configuration, batch_size in [] if bench.args.without_batches else WHOLE:
        provide(bench, dataset, bench.args.preprocessed)
        case = (dataset, configuration, batch_size)
        sides = [batches(bench, side, seed + i, *case) for i, side in enumerate((upstream, ours))]
        tests += compare(f"batches {dataset} {configuration}: ", *sides)
    print(format_table(tests))
    failures = rejected(tests, bench.args.level)
    print(f"\n{len(tests)} tests, {len(failures)} fail; smallest p {min(test.p for test in tests):.3g}")
    if failures:
        print(format_table(failures))
    bench.finish()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
