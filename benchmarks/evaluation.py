"""nnUNetv2_evaluate_folder on the torso phantom, with the predictions recorded beside upstream's outputs."""

from __future__ import annotations

from common import Bench


def main() -> None:
    """Measure with two processes."""
    bench = Bench(__doc__, ("--dataset", {"default": "Dataset900_Torso"}))
    documents = bench.shared / "goldens" / bench.args.dataset
    folder = documents / "eval"
    found = bench.alternate(
        lambda side: side.run(
            "nnUNetv2_evaluate_folder",
            folder / "gt",
            folder / "preds",
            "-djfile",
            documents / "dataset.json",
            "-pfile",
            documents / "nnUNetPlans.json",
            "-np",
            "2",
            "-o",
            side.folder / "summary.json",
        )
    )
    bench.add(f"evaluate_folder {bench.args.dataset}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
