"""nnUNetv2_evaluate_folder on 50 cases of Dataset004 and the torso phantom, with predictions recorded from upstream.

Further rows, ours alone: the same with every additional metric (surface distances, volumes, lesions).
"""

from __future__ import annotations

from pathlib import Path

from common import Bench, Measurement, Side

DATASETS = ("Dataset900_Torso", "Dataset004_Hippocampus")


def main() -> None:
    """Measure with two processes."""
    bench = Bench(__doc__, ("--datasets", {"nargs": "+", "default": DATASETS}))
    for dataset in bench.args.datasets:
        documents = bench.shared / "goldens" / dataset
        cases = len(list((documents / "eval" / "preds").glob("*.nii.gz")))
        found = bench.alternate(lambda side, documents=documents: evaluate(side, documents))
        bench.add(f"evaluate_folder {dataset}, {cases} cases", found, memory=True)
        if bench.args.only != "upstream":
            all_metrics = [evaluate(bench.ours, documents, "--metrics", "all") for _ in range(bench.args.repeats)]
            bench.add(f"with --metrics all {dataset}, {cases} cases", {"ours": all_metrics}, memory=True)
    bench.finish()


def evaluate(side: Side, documents: Path, *flags: str) -> Measurement:
    """Compare the recorded predictions of a dataset with its references."""
    folders = (documents / "eval" / "gt", documents / "eval" / "preds")
    files = ("-djfile", documents / "dataset.json", "-pfile", documents / "nnUNetPlans.json")
    output = side.folder / f"summary_{documents.name}.json"
    return side.run("nnUNetv2_evaluate_folder", *folders, *files, "-np", "2", "-o", output, *flags)


if __name__ == "__main__":
    main()
