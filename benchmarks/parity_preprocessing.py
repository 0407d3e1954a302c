"""Preprocess a dataset by both sides from the same plans (upstream's) and compare every case; then train across.

Labels: share of identical voxels. Data: largest and 99.9th percentile difference after normalization. Properties:
equal, except the drawn class locations, of which keys and counts are compared.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from common import HERE, Bench, Side, port_trainer


def load(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Data, labels and properties of a preprocessed case."""
    data, seg = (blosc2.open(urlpath=str(folder / f"{case}{end}.b2nd"), mode="r")[:] for end in ("", "_seg"))
    return data, seg, pickle.loads((folder / f"{case}.pkl").read_bytes())


def same(first: Any, second: Any) -> bool:
    """Equal content, whatever the containers and number types."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(same(value, second[key]) for key, value in first.items())
        )
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))


def different_properties(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of the properties that differ."""
    found = [key for key in first if key != "class_locations" and not same(first[key], second.get(key))]
    found += [key for key in second if key not in first]
    counts = [
        {key: len(places) for key, places in properties["class_locations"].items()} for properties in (first, second)
    ]
    return found + (["class_locations"] if counts[0] != counts[1] else [])


def train_across(bench: Bench, side: Side, other: Side, name: str, configuration: str) -> None:
    """One iteration of a side's trainer from the other side's folder."""
    side.run(
        "nnUNetv2_train",
        str(int(name[7:10])),
        configuration,
        bench.args.fold,
        "-tr",
        "TimedTrainer",
        "-device",
        "cpu",
        nnUNet_preprocessed=str(other.preprocessed),
        BENCHMARK_ITERATIONS="1",
        BENCHMARK_OUTPUT=str(side.folder / "seconds.json"),
        nnUNet_extTrainer=str(port_trainer(HERE / "trainers" / "timed_trainers.py", side)),
    )
    print(f"  {side.name} trained one iteration from the folder of {other.name}", flush=True)


def main() -> None:
    """Compare the dataset and configurations asked for."""
    bench = Bench(
        __doc__,
        ("--dataset", {"default": "Dataset004_Hippocampus"}),
        ("--configurations", {"nargs": "+", "default": ["3d_fullres", "3d_lowres", "2d"]}),
        ("--fold", {"default": "0", "help": "of the training across; none to leave it out"}),
        repeats=1,
    )
    name, pair = bench.args.dataset, bench.pair()
    recorded = ["splits_final.json"] if (bench.shared / "goldens" / name / "splits_final.json").exists() else []
    if (bench.shared / "goldens" / name).is_dir():
        bench.documents(name, "dataset_fingerprint.json", "nnUNetPlans.json", *recorded)
    else:
        bench.documents(name)
        pair[0].run("nnUNetv2_plan_and_preprocess", "-d", str(int(name[7:10])), "--no_pp", "-npfp", "2")
        for file in ("dataset_fingerprint.json", "nnUNetPlans.json", "dataset.json"):
            shutil.copyfile(pair[0].preprocessed / name / file, pair[1].preprocessed / name / file)
    planned = json.loads((pair[1].preprocessed / name / "nnUNetPlans.json").read_text())["configurations"]
    for configuration in (asked for asked in bench.args.configurations if asked in planned):
        for side in pair:
            side.run("nnUNetv2_preprocess", "-d", str(int(name[7:10])), "-c", configuration, "-np", "2")
        folders = [side.preprocessed / name / f"nnUNetPlans_{configuration}" for side in pair]
        cases = sorted(file.stem for file in folders[0].glob("*.pkl"))
        voxels = equal = 0
        largest, worst, properties = 0.0, [], {}
        for case in cases:
            (data, seg, first), (our_data, our_seg, second) = (load(folder, case) for folder in folders)
            voxels, equal = voxels + seg.size, equal + int(np.count_nonzero(seg == our_seg))
            error = np.abs(data - our_data)
            worst.append((float(error.max()), case))
            largest = max(largest, float(np.quantile(error, 0.999)))
            if found := different_properties(first, second):
                properties[case] = found
        print(
            f"{name} {configuration}: {len(cases)} cases; labels identical in {equal / voxels:.6%} of voxels; data "
            f"differ by at most {max(worst)[0]:.2e} ({max(worst)[1]}), 99.9 % of a case's voxels by at most "
            f"{largest:.2e}; properties {'equal' if not properties else f'differ: {properties}'}",
            flush=True,
        )
        if bench.args.fold != "none":
            for side, other in (pair, pair[::-1]):
                train_across(bench, side, other, name, configuration)


if __name__ == "__main__":
    main()
