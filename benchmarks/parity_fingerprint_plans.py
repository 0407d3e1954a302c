"""Fingerprints and plans of both sides, compared value by value.

Plans are made twice by ours: from its own fingerprint and from upstream's, the latter must be the same JSON.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from typing import Any

from common import Bench

PLANNERS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}


def differences(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two documents differ: its path and both values."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            missing = "(missing)"
            yield from differences(first.get(key, missing), second.get(key, missing), f"{path}/{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, pair in enumerate(zip(first, second, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif first != second or isinstance(first, bool) != isinstance(second, bool):
        yield path, first, second


def relative(first: float, second: float, scale: float) -> float:
    """Difference as a part of the scale (the standard deviation of the channel, say)."""
    return abs(first - second) / scale if scale else math.inf


def compare_fingerprints(upstream: dict[str, Any], ours: dict[str, Any]) -> None:
    """Exact where it must be, otherwise how far."""
    for key in ("spacings", "shapes_after_crop", "median_relative_size_after_cropping"):
        found = list(differences(upstream[key], ours[key]))
        print(f"  {key}: {'identical' if not found else f'{len(found)} differ, first {found[0]}'}")
    for channel, values in upstream["foreground_intensity_properties_per_channel"].items():
        other = ours["foreground_intensity_properties_per_channel"][channel]
        text = ", ".join(f"{key} {relative(value, other[key], values['std']):.1e}" for key, value in values.items())
        print(f"  channel {channel}, differences in standard deviations: {text}")


def main() -> None:
    """Compare fingerprints and plans of the datasets asked for."""
    bench = Bench(
        __doc__,
        ("--datasets", {"nargs": "+", "default": ["Dataset004_Hippocampus"]}),
        ("--planners", {"nargs": "+", "default": list(PLANNERS)}),
        repeats=1,
    )
    pair = bench.pair()
    for name in bench.args.datasets:
        bench.dataset(name)
        number = str(int(name[7:10]))
        folders = {side.name: side.preprocessed / name for side in pair}
        for side in pair:
            side.run("nnUNetv2_extract_fingerprint", "-d", number, "-np", "2", "--clean")
        files = {key: folder / "dataset_fingerprint.json" for key, folder in folders.items()}
        print(name)
        compare_fingerprints(*(json.loads(files[key].read_text()) for key in ("upstream", "ours")))
        for fingerprint in ("ours", "upstream"):
            if fingerprint == "upstream":
                shutil.copyfile(files["upstream"], files["ours"])
            for planner in bench.args.planners:
                plans: dict[str, Any] = {}
                for side in pair:
                    file = folders[side.name] / f"{PLANNERS[planner]}.json"
                    file.unlink(missing_ok=True)
                    side.run("nnUNetv2_plan_experiment", "-d", number, "-pl", planner)
                    plans[side.name] = json.loads(file.read_text())
                found = list(differences(plans["upstream"], plans["ours"]))
                print(
                    f"  plans of {planner} from {fingerprint} fingerprint: "
                    f"{'identical' if not found else f'{len(found)} values differ'}"
                )
                for path, first, second in found[:10]:
                    print(f"    {path}: upstream {first}, ours {second}")


if __name__ == "__main__":
    main()
