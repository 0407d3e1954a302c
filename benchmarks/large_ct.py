"""nnUNetv2_preprocess of a CT of 512 x 512 x 600 voxels with 100 labels to 1 mm, 3d_fullres, one process each.

Upstream is ended when it takes more time or memory than the machine has to offer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from common import HERE, MIB, Bench, Limits

NAME = "Dataset901_CTPhantom"


def main() -> None:
    """Make the phantom, plan it once, preprocess it by both sides."""
    bench = Bench(
        __doc__,
        ("--limit-seconds", {"type": float, "default": 600, "help": "for upstream (default: %(default)s)"}),
        ("--limit-gib", {"type": float, "default": 18, "help": "memory for upstream (default: %(default)s)"}),
        repeats=1,
    )
    if bench.args.raw is not None and (bench.args.raw / NAME).is_dir():
        bench.dataset(NAME)
    if not (bench.raw / NAME).exists():
        subprocess.run([sys.executable, str(HERE / "make_ct_phantom.py"), str(bench.raw)], check=True)
    plan = ["nnUNetv2_plan_and_preprocess", "-d", NAME, "--no_pp", "-npfp", "1", "-overwrite_target_spacing", *"111"]
    fingerprint = bench.ours.run(*plan)
    bench.row("fingerprint and plan", {"ours": fingerprint.seconds})
    bench.row("fingerprint and plan, memory", {"ours": fingerprint.peak / MIB}, "MiB")
    limits = Limits(bench.args.limit_seconds, int(bench.args.limit_gib * 2**30))
    seconds, memory = {}, {}
    for side in bench.sides[::-1]:  # ours first, since upstream may have to be ended
        folder = side.preprocessed / NAME
        shutil.rmtree(folder / "nnUNetPlans_3d_fullres", ignore_errors=True)
        if side is not bench.ours:
            folder.mkdir(exist_ok=True)
            for file in ("dataset.json", "dataset_fingerprint.json", "nnUNetPlans.json"):
                shutil.copyfile(bench.ours.preprocessed / NAME / file, folder / file)
        found = side.run("nnUNetv2_preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1", limits=limits)
        seconds[side.name], memory[side.name] = found.seconds, found.peak / MIB
        print(f"{side.name}: {found.seconds:.0f} s, {found.peak / MIB:.0f} MiB {found.stopped}", flush=True)
    bench.row("preprocess 3d_fullres", seconds)
    bench.row("preprocess 3d_fullres, memory", memory, "MiB")
    bench.finish()


if __name__ == "__main__":
    main()
