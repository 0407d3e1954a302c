"""Plans of both sides, compared as text: values, key order and number formats.

All planners on the datasets asked for, from the same fingerprint; and random fingerprints of every kind (2D, 3D,
anisotropic, tiny, huge, many channels, many labels, regions), each with the default planner and one of the others in
turn, one in four with a memory target and one in six with a target spacing of its own. A random dataset consists of
dataset.json, a fingerprint and one tiny image, which only decides about the reader.

With --work, a run that was stopped (or whose --seconds were up) goes on when it is started again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from common import HERE, Bench, Side
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
CHANNELS = ("CT", "MRI", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1", "T2", "CTA", "RGB")
LABELS: tuple[dict[str, Any], ...] = (
    {"labels": {"background": 0, "a": 1}},
    {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
    {"labels": {"background": 0, "wt": [1, 2, 3], "tc": [2, 3], "et": 3}, "regions_class_order": [1, 2, 3]},
    {"labels": {"background": 0, **{f"organ {i}": i for i in range(1, 25)}}},
    {"labels": {"background": 0, **{f"organ {i}": i for i in range(1, 118)}}},
)
KINDS = ("3D", "anisotropic", "2D", "tiny", "huge", "thin", "large 2D", "mixed")
KINDS_BY_PATIENCE = ("tiny", "thin", "2D", "3D", "anisotropic", "mixed", "huge", "large 2D")
FIRST_RANDOM = 501  # dataset id; below are real ones
ONLY_IDENTIFIER = "data_identifier"  # differs on purpose where upstream would mix differently preprocessed cases


def random_cases(rng: np.random.Generator, kind: str) -> tuple[list[list[int]], list[list[float]]]:
    """Shapes (voxels) and spacings (mm) of a dataset of one of the `KINDS`."""
    n = int(rng.integers(4, 60))
    if "2D" in kind:
        low, high = (1500, 6000) if kind == "large 2D" else (30, 1200)
        return [[1, *rng.integers(low, high, 2).tolist()] for _ in range(n)], [[999.0, 1.0, 1.0]] * n
    spacing = np.exp(rng.uniform(np.log(0.4), np.log(3), 3))
    if kind in ("anisotropic", "thin"):
        spacing[1:] = spacing[1]
        spacing[0] = spacing[1] * rng.uniform(2, 9)
    extent = rng.uniform(20, 400, 3)
    low, high = 12, 700
    if kind == "tiny":
        extent, low, high = rng.uniform(6, 30, 3) * spacing, 5, 40
    if kind == "huge":
        extent, low, high = rng.uniform(600, 1600, 3) * spacing, 500, 1800
    if kind == "thin":
        extent[0] = spacing[0] * rng.uniform(3, 14)
        low = 3
    order = rng.permutation(3)
    shapes, spacings = [], []
    for _ in range(n):
        own = spacing * rng.choice([1, 1, 1, rng.uniform(0.7, 1.5)])
        if kind == "mixed" and rng.random() < 0.4:
            own[0] *= rng.uniform(3, 8)
        shape = np.clip(np.round(extent * rng.uniform(0.8, 1.25, 3) / own), low, high).astype(int)
        shapes.append(shape[order].tolist())
        spacings.append(own[order].tolist())
    return shapes, spacings


def random_dataset(rng: np.random.Generator, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """dataset.json and fingerprint."""
    shapes, spacings = random_cases(rng, kind)
    channels = rng.choice(CHANNELS, int(rng.choice([1, 1, 2, 3, 4, 12]))).tolist()
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


def give_fingerprint(bench: Bench, name: str, content: dict[str, Any] | None = None) -> None:
    """The same fingerprint for both sides: the one given, a recorded one, or one that ours extracts now."""
    folders = [side.preprocessed / name for side in bench.pair()]
    files = [folder / "dataset_fingerprint.json" for folder in folders]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    recorded = bench.shared / "goldens" / name / "dataset_fingerprint.json"
    if content is not None:
        files[1].write_text(json.dumps(content, indent=4, sort_keys=True))
    elif recorded.is_file():
        shutil.copyfile(recorded, files[1])
    elif not files[1].exists():
        bench.ours.run("nnUNetv2_extract_fingerprint", "-d", str(int(name[7:10])), "-np", "1", "--no_pbar")
    shutil.copyfile(files[1], files[0])


def job(name: str, planner: str, **options: Any) -> dict[str, Any]:
    """One call of plan_experiments."""
    file = options.get("overwrite_plans_name", PLANNERS[planner])
    return {"key": f"{name}-{file}", "dataset": name, "planner": planner, "file": file, "options": options}


def random_jobs(bench: Bench) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the random datasets; the kind of each and the two jobs it gives."""
    rng = np.random.default_rng(bench.args.seed)
    others = list(PLANNERS)[1:]
    for number in range(bench.args.n):
        kind = KINDS[number % len(KINDS)]
        name = f"Dataset{FIRST_RANDOM + number:03d}_Random"
        document, fingerprint = random_dataset(rng, kind)
        write_raw(bench.raw / name, document)
        give_fingerprint(bench, name, fingerprint)
        for planner in ("ExperimentPlanner", others[(number + number // len(others)) % len(others)]):
            options: dict[str, Any] = {}
            if rng.random() < 0.25:
                options["gpu_memory_target_in_gb"] = float(rng.integers(4, 33))
            if rng.random() < 1 / 6 and "2D" not in kind:
                options["overwrite_target_spacing"] = np.round(rng.uniform(0.5, 4, 3), 2).tolist()
                options["overwrite_plans_name"] = f"{PLANNERS[planner]}_other"
            yield kind, job(name, planner, **options)


def plan(bench: Bench, side: Side, jobs: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Results of the jobs, None where the time was not enough."""
    file, results = side.folder / "jobs.json", side.folder / "plans"
    file.write_text(json.dumps(jobs))
    if not all((results / f"{one['key']}.json").exists() for one in jobs):
        side.run("python", HERE / "plan_many.py", side.package, file, results, str(bench.args.seconds))
    files = [results / f"{one['key']}.json" for one in jobs]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


def verdict(upstream: dict[str, Any], ours: dict[str, Any]) -> str:
    """What became of one job on both sides."""
    if upstream["error"] or ours["error"]:
        return "ERROR" if ours["error"] else "upstream fails"
    if upstream["text"] == ours["text"]:
        return "identical"
    theirs, mine = json.loads(upstream["text"]), json.loads(ours["text"])
    found = list(differences(theirs, mine))
    if found and all(path.endswith(ONLY_IDENTIFIER) for path, *_ in found):
        return "own data folder"
    for name, configuration in list(theirs["configurations"].items()):
        if configuration.get("architecture", {}).get("arch_kwargs", {}).get("n_stages") == 1:  # cannot be built
            theirs["configurations"].pop(name)
            mine["configurations"].pop(name, None)
    return "DIFFERENT" if theirs != mine else "upstream's network is unusable (one stage)"


def main() -> int:
    """Plan everything with both sides and compare."""
    bench = Bench(
        __doc__,
        ("-n", {"type": int, "default": 16, "help": "random datasets (default: %(default)s)"}),
        ("--seed", {"type": int, "default": 0}),
        ("--datasets", {"nargs": "*", "default": [], "help": "datasets to plan with every planner"}),
        ("--seconds", {"type": float, "default": 3600, "help": "stop each side after so long (default: %(default)s)"}),
        repeats=1,
    )
    upstream, ours = bench.pair()
    jobs: list[tuple[str, dict[str, Any]]] = []
    for name in bench.args.datasets:
        bench.dataset(name)
        give_fingerprint(bench, name)
        jobs += [("real", job(name, planner)) for planner in PLANNERS]
    jobs += sorted(random_jobs(bench), key=lambda found: KINDS_BY_PATIENCE.index(found[0]))  # upstream takes minutes
    mine, theirs = (plan(bench, side, [one for _, one in jobs]) for side in (ours, upstream))
    counts: dict[str, int] = {}
    seconds = [0.0, 0.0]
    for (kind, one), first, second in zip(jobs, theirs, mine, strict=True):
        if first is None or second is None:
            counts["not done"] = counts.get("not done", 0) + 1
            continue
        result = verdict(first, second)
        counts[result] = counts.get(result, 0) + 1
        seconds = [seconds[0] + first["seconds"], seconds[1] + second["seconds"]]
        print(f"{one['key']} ({kind}) {one['planner']} {one['options'] or ''}: {result}")
        print(f"      upstream {first['seconds']:.2f} s, ours {second['seconds']:.2f} s")
        if result in ("ERROR", "upstream fails"):
            print(f"      upstream {first['error']}, ours {second['error']}")
        elif result != "identical":
            for path, one_value, other in differences(json.loads(first["text"]), json.loads(second["text"])):
                print(f"      {path}: upstream {one_value}, ours {other}")
    print(", ".join(f"{count} {what}" for what, count in counts.items()), f"of {len(jobs)} plans;", end=" ")
    print(f"seconds in all: upstream {seconds[0]:.0f}, ours {seconds[1]:.1f}")
    return 1 if counts.get("DIFFERENT") or counts.get("ERROR") else 0


if __name__ == "__main__":
    sys.exit(main())
