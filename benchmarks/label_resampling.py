"""Resampling of label maps with many labels, both sides' resample_data_or_seg_to_shape on the same arrays.

Also how many voxels agree. Memory is what the resampling takes beside its input and output.
"""

from __future__ import annotations

import json

from common import MIB, Bench

WORK = """
import json, resource, sys, time
import numpy as np, SimpleITK as sitk
from IMPORT import resample_data_or_seg_to_shape
file, output, *target = sys.argv[1:]
image = sitk.ReadImage(file)
seg = sitk.GetArrayFromImage(image)[None].astype(np.int16)
spacing, target = list(image.GetSpacing())[::-1], [float(t) for t in target]
shape = [int(round(s / t * n)) for s, t, n in zip(spacing, target, seg.shape[1:])]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
result = resample_data_or_seg_to_shape(
    seg, shape, spacing, target, is_seg=True, order=1, order_z=0, force_separate_z=None)
seconds = time.perf_counter() - start
taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) - result.nbytes
np.save(output, result)
print(json.dumps([seconds, max(0, taken), len(np.unique(seg)) - 1, list(seg.shape[1:]), list(result.shape[1:])]))
"""
COMPARE = "import sys, numpy as np; a, b = map(np.load, sys.argv[1:]); print(float((a == b).mean()))"
IMPORT = {
    "upstream": "nnunetv2.preprocessing.resampling.default_resampling",
    "ours": "nnunet_lite.preprocessing.resampling",
}


def main() -> None:
    """Measure every label map of the dataset."""
    bench = Bench(
        __doc__,
        ("--dataset", {"default": "Dataset116_TotalSegCT"}),
        ("--spacing", {"nargs": 3, "default": ["1.5", "1.5", "1.5"], "help": "mm, z y x (default: 1.5 1.5 1.5)"}),
    )
    for file in sorted((bench.dataset(bench.args.dataset) / "labelsTr").iterdir()):
        seconds: dict[str, float] = {}
        memory: dict[str, float] = {}
        described, results = "", []
        for _ in range(bench.args.repeats):
            for side in bench.sides:
                results.append(str(side.folder / "labels.npy"))
                code = WORK.replace("IMPORT", IMPORT[side.name])
                found = side.run("python", "-c", code, file, results[-1], *bench.args.spacing)
                taken, extra, labels, before, after = json.loads(found.output.splitlines()[-1])
                seconds[side.name] = min(taken, seconds.get(side.name, taken))
                memory[side.name] = min(extra / MIB, memory.get(side.name, extra / MIB))
                described = f"{file.name}: {labels} labels, {before} to {after}"
        bench.row(described, seconds)
        bench.row(f"{file.name}, memory", memory, "MiB")
        if bench.upstream is not None and bench.args.only is None:
            agree = bench.ours.run("python", "-c", COMPARE, *results[-2:]).output.strip()
            print(f"  labels agree in {float(agree):.6%} of voxels")
    bench.finish()


if __name__ == "__main__":
    main()
