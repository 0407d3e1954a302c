"""Plans of both sides for random fingerprints, compared as text: values, key order and number formats.

Every dataset consists of dataset.json, a fingerprint and one tiny image, which only decides about the reader.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from common import Bench
from parity_fingerprint_plans import differences

PLANNERS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
    "ResEncUNetPlanner": "nnUNetResEncUNetPlans",
    "nnUNetPlanner_torchres": "nnUNetPlans_torchres",
    "nnUNetPlannerResEncL_torchres": "nnUNetResEncUNetLPlans_torchres",
    "nnUNetPlannerResEncL_torchres_sepz": "nnUNetResEncUNetLPlans_torchres_sepz",
    "nnUNetPlannerResEncL_noResampling": "nnUNetResEncUNetLPlans_noResampling",
}
CHANNELS = ("CT", "MRI", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1", "T2")
LABELS: tuple[dict[str, Any], ...] = (
    {"labels": {"background": 0, "a": 1}},
    {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
    {"labels": {"background": 0, "wt": [1, 2, 3], "tc": [2, 3], "et": 3}, "regions_class_order": [1, 2, 3]},
    {"labels": {"background": 0, **{f"organ {i}": i for i in range(1, 25)}}},
)


def random_cases(rng: np.random.Generator) -> tuple[list[list[int]], list[list[float]]]:
    """Shapes and spacings of a dataset; one in five is 2D, half of the others have a coarse axis somewhere."""
    if rng.random() < 0.2:
        shapes = [[1, *rng.integers(30, 1500, 2).tolist()] for _ in range(int(rng.integers(4, 60)))]
        return shapes, [[999.0, 1.0, 1.0] for _ in shapes]
    spacing = np.exp(rng.uniform(np.log(0.4), np.log(3), 3))
    if rng.random() < 0.5:
        spacing[1:] = spacing[1]
        spacing[0] *= rng.uniform(1, 8)
    extent, order = rng.uniform(20, 400, 3), rng.permutation(3)
    shapes, spacings = [], []
    for _ in range(int(rng.integers(4, 60))):
        own = spacing * rng.choice([1, 1, 1, rng.uniform(0.7, 1.5)])
        shape = np.clip(np.round(extent * rng.uniform(0.8, 1.25, 3) / own), 12, 700).astype(int)
        shapes.append(shape[order].tolist())
        spacings.append(own[order].tolist())
    return shapes, spacings


def random_dataset(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """dataset.json and fingerprint."""
    shapes, spacings = random_cases(rng)
    channels = rng.choice(CHANNELS, int(rng.integers(1, 4))).tolist()
    document = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        **LABELS[int(rng.integers(len(LABELS)))],
        "numTraining": len(shapes),
        "file_ending": ".nii.gz",
    }
    names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    fingerprint = {
        "foreground_intensity_properties_per_channel": {
            str(i): dict(zip(names, rng.normal(0, 500, 7).tolist(), strict=True)) for i in range(len(channels))
        },
        "median_relative_size_after_cropping": float(rng.uniform(0.4, 1)),
        "shapes_after_crop": shapes,
        "spacings": spacings,
    }
    return document, fingerprint


def write_raw(folder: Path, document: dict[str, Any]) -> None:
    """dataset.json and one case of 4x4x4 voxels."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for channel in range(len(document["channel_names"])):
        sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkFloat32), str(folder / "imagesTr" / f"case_{channel:04d}.nii.gz"))
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(folder / "labelsTr" / "case.nii.gz"))
    (folder / "dataset.json").write_text(json.dumps(document))


def main() -> int:
    """Plan each dataset with both; every second one with the default planner, the others with one of the rest."""
    bench = Bench(
        __doc__,
        ("-n", {"type": int, "default": 15, "help": "datasets (default: %(default)s)"}),
        ("--seed", {"type": int, "default": 0}),
        repeats=1,
    )
    pair = bench.pair()
    rng = np.random.default_rng(bench.args.seed)
    planners = list(PLANNERS)
    different = 0
    for number in range(1, bench.args.n + 1):
        name = f"Dataset{number:03d}_Random"
        document, fingerprint = random_dataset(rng)
        write_raw(bench.raw / name, document)
        planner = planners[0] if number % 2 else planners[number // 2 % len(planners)]
        arguments = ["-d", str(number), "-pl", planner]
        if rng.random() < 0.25:
            arguments += ["-gpu_memory_target", str(rng.integers(4, 33))]
        texts, seconds = [], []
        for side in pair:
            folder = side.preprocessed / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint, indent=4, sort_keys=True))
            seconds.append(side.run("nnUNetv2_plan_experiment", *arguments).seconds)
            texts.append((folder / f"{PLANNERS[planner]}.json").read_text())
        equal = texts[0] == texts[1]
        different += not equal
        plans = [json.loads(text) for text in texts]
        patches = {key: c["patch_size"] for key, c in plans[1]["configurations"].items() if "patch_size" in c}
        print(
            f"{number:3d} {' '.join(arguments[2:])}: {'identical' if equal else 'DIFFERENT'}, {patches}, "
            f"upstream {seconds[0]:.2f} s, ours {seconds[1]:.2f} s",
            flush=True,
        )
        for path, upstream, ours in differences(*plans):
            print(f"      {path}: upstream {upstream}, ours {ours}")
    print(f"{bench.args.n - different} of {bench.args.n} plans are identical")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
