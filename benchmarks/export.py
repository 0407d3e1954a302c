"""Export of logits from the network's resolution to the image's: the function both sides share.

Memory is what the process has of its own at the peak above what it had with the logits in it. Seconds of all threads
are what is left to compare where the machine has other work, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, MIB, Bench, Side

TORSO = ([25, 140, 307, 300], [168, 328, 320], [2.5, 0.75, 0.75])
WHOLE_BODY = ([118, 354, 300, 300], [531, 512, 512], [1.0, 0.9765625, 0.9765625])  # 1.5 x 1.67 x 1.67 mm to CT slices
MODES = ("labels", "probabilities", "many-classes")


def main() -> None:
    """Measure, and compare what was exported."""
    bench = Bench(
        __doc__,
        ("--dtype", {"default": "float16", "help": "of the logits (default: %(default)s)"}),
        ("--modes", {"nargs": "+", "choices": MODES, "default": list(MODES[:2]), "help": "(default: %(default)s)"}),
        ("--threads", {"type": int, "default": 2, "help": "(default: %(default)s)"}),
    )
    for mode in bench.args.modes:
        sides = [side for side in bench.sides if mode != "many-classes" or side is bench.ours]  # 40 GiB and more
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(bench.args.repeats):
            for side in sides:
                found.setdefault(side.name, []).append(measure(bench, side, mode))
        shapes = "{} to {}".format(*(WHOLE_BODY if mode == "many-classes" else TORSO))
        for key, unit, scale in (("seconds", "s", 1), ("processor", "s of all threads", 1), ("bytes", "MiB", MIB)):
            values = {name: min(run[key] for run in runs) / scale for name, runs in found.items()}
            bench.row(f"export of {shapes}, {mode}{', memory' if unit == 'MiB' else ''}", values, unit)
        if len(sides) == 2:
            print(difference(mode, *(side.folder / "segmentation" for side in sides)))
    bench.finish()


def measure(bench: Bench, side: Side, mode: str) -> dict[str, float]:
    """Export once; what the driver printed."""
    documents = bench.shared / "goldens" / "Dataset900_Torso"
    shape, image, spacing = WHOLE_BODY if mode == "many-classes" else TORSO
    job: dict[str, Any] = {
        "configuration": "3d_fullres",
        "shape": shape,
        "dtype": bench.args.dtype,
        "probabilities": mode == "probabilities",
        "from_file": mode == "many-classes",  # 7 GiB
        "threads": bench.args.threads,
        "properties": {
            "spacing": spacing,
            "shape_before_cropping": image,
            "bbox_used_for_cropping": [[0, n] for n in image],
            "shape_after_cropping_and_before_resampling": image,
            "sitk_stuff": {
                "spacing": spacing[::-1],
                "origin": [0.0, 0.0, 0.0],
                "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            },
        },
    }
    if mode == "many-classes":
        job["labels"] = {"background": 0, **{f"organ {label}": label for label in range(1, shape[0])}}
    job_file = bench.work / "job.json"
    job_file.write_text(json.dumps(job))
    driver = (HERE / "drivers" / "export_logits.py", side.package)
    files = (documents / "nnUNetPlans.json", documents / "dataset.json", job_file, side.folder / "segmentation")
    done = side.run("python", *driver, *files)
    found: dict[str, float] = json.loads(done.output.strip().splitlines()[-1])
    return found


def difference(mode: str, theirs: Path, ours: Path) -> str:
    """How label maps or probabilities of the two sides differ."""
    if mode == "labels":
        maps = [np.load(path.with_suffix(".npy")) for path in (theirs, ours)]
        different = int(np.count_nonzero(maps[0] != maps[1]))
        return f"label maps: {different} of {maps[0].size} voxels differ, {1 - different / maps[0].size:.5%} are equal"
    archives = [path.with_suffix(".npz") for path in (theirs, ours)]
    arrays = [np.load(archive)["probabilities"] for archive in archives]
    largest = max(float(np.abs(a - b).max()) for a, b in zip(*arrays, strict=True))
    sizes = " and ".join(f"{archive.stat().st_size / MIB:.0f} MiB" for archive in archives)
    return f"probabilities: largest difference {largest:.1e}; files of {sizes}"


if __name__ == "__main__":
    main()
