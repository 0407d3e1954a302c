"""nnUNetv2_preprocess with two processes, from upstream's recorded fingerprints and plans."""

from __future__ import annotations

from operator import methodcaller

from common import Bench, Side, remove


def main() -> None:
    """Measure the datasets and configurations asked for."""
    bench = Bench(
        __doc__,
        ("--datasets", {"nargs": "+", "default": ["Dataset900_Torso", "Dataset004_Hippocampus"]}),
        ("--configuration", {"default": "3d_fullres"}),
    )
    for name in bench.args.datasets:
        bench.documents(name, "dataset_fingerprint.json", "nnUNetPlans.json")

        def prepare(side: Side, name: str = name) -> None:
            remove(side.preprocessed / name / f"nnUNetPlans_{bench.args.configuration}")

        run = methodcaller(
            "run", "nnUNetv2_preprocess", "-d", str(int(name[7:10])), "-c", bench.args.configuration, "-np", "2"
        )
        found = bench.alternate(run, prepare)
        bench.add(f"preprocess {bench.args.configuration} {name}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
