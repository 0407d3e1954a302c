"""Export of 25 channels of logits from the network's resolution to the image's: the function both sides share.

Memory is what the process needs at its peak above what it held with the logits in it.
"""

from __future__ import annotations

import json

import numpy as np
from common import HERE, MIB, Bench


def main() -> None:
    """Measure, and compare the two label maps."""
    bench = Bench(__doc__, ("--dtype", {"default": "float16", "help": "of the logits (default: %(default)s)"}))
    documents = bench.shared / "goldens" / "Dataset900_Torso"
    image = [168, 328, 320]
    job = {
        "configuration": "3d_fullres",
        "shape": [25, 140, 307, 300],
        "dtype": bench.args.dtype,
        "properties": {
            "spacing": [2.5, 0.75, 0.75],
            "shape_before_cropping": image,
            "bbox_used_for_cropping": [[0, n] for n in image],
            "shape_after_cropping_and_before_resampling": image,
        },
    }
    job_file = bench.work / "job.json"
    job_file.write_text(json.dumps(job))
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(bench.args.repeats):
        for side in bench.sides:
            done = side.run(
                "python",
                HERE / "drivers" / "export_logits.py",
                side.package,
                documents / "nnUNetPlans.json",
                documents / "dataset.json",
                job_file,
                side.folder / "segmentation.npy",
            )
            found.setdefault(side.name, []).append(json.loads(done.output.strip().splitlines()[-1]))
    bench.row(
        "export of logits (25, 140, 307, 300) to (168, 328, 320)",
        {name: min(run["seconds"] for run in runs) for name, runs in found.items()},
    )
    bench.row(
        "the same, memory above the logits",
        {name: min(run["bytes"] for run in runs) / MIB for name, runs in found.items()},
        "MiB",
    )
    if len(bench.sides) == 2:
        maps = [np.load(side.folder / "segmentation.npy") for side in bench.sides]
        different = int(np.count_nonzero(maps[0] != maps[1]))
        print(f"label maps: {different} of {maps[0].size} voxels differ, {1 - different / maps[0].size:.5%} are equal")
    bench.finish()


if __name__ == "__main__":
    main()
