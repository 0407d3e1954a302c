"""nnUNetv2_determine_postprocessing and nnUNetv2_apply_postprocessing, on predictions recorded with upstream's results.

50 cases of Dataset004 (perturbed references) and the torso phantom (24 labels, 4 cases), two processes each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from common import Bench, Measurement, Side, remove


def determine(side: Side, recorded: Path) -> Measurement:
    """Decide what to remove; the folder of predictions is `predictions` of the side, made anew before."""
    documents = ("-plans_json", recorded / "nnUNetPlans.json", "-dataset_json", recorded / "dataset.json")
    folders = ("-i", side.folder / "predictions", "-ref", recorded / "eval" / "gt")
    return side.run("nnUNetv2_determine_postprocessing", *folders, *documents, "-np", "2")


def apply(side: Side, recorded: Path) -> Measurement:
    """Remove it from every prediction; both sides read the file that upstream recorded."""
    documents = ("-plans_json", recorded / "nnUNetPlans.json", "-dataset_json", recorded / "dataset.json")
    folders = ("-i", recorded / "eval" / "preds", "-o", side.folder / "applied")
    file = recorded / "postprocessing" / "postprocessing.pkl"
    return side.run("nnUNetv2_apply_postprocessing", *folders, "-pp_pkl_file", file, *documents, "-np", "2")


def main() -> None:
    """Measure with two processes."""
    datasets = ["Dataset004_Hippocampus", "Dataset900_Torso"]
    bench = Bench(__doc__, ("--datasets", {"nargs": "+", "default": datasets}))
    for dataset in bench.args.datasets:
        recorded = bench.shared / "goldens" / dataset

        def copy_predictions(side: Side, recorded: Path = recorded) -> None:
            remove(side.folder / "predictions")
            shutil.copytree(recorded / "eval" / "preds", side.folder / "predictions")

        def prepare(side: Side) -> None:
            remove(side.folder / "applied")

        found = bench.alternate(lambda side, recorded=recorded: determine(side, recorded), copy_predictions)
        bench.add(f"determine_postprocessing {dataset}", found, memory=True)
        found = bench.alternate(lambda side, recorded=recorded: apply(side, recorded), prepare)
        bench.add(f"apply_postprocessing {dataset}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
