"""nnUNetv2_plan_experiment, from upstream's recorded fingerprints."""

from __future__ import annotations

from operator import methodcaller

from common import Bench, Side, remove


def main() -> None:
    """Measure Dataset004 and the torso phantom."""
    bench = Bench(__doc__)
    for name in ("Dataset004_Hippocampus", "Dataset900_Torso"):
        bench.documents(name, "dataset_fingerprint.json")

        def prepare(side: Side, name: str = name) -> None:
            remove(side.preprocessed / name / "nnUNetPlans.json")

        found = bench.alternate(methodcaller("run", "nnUNetv2_plan_experiment", "-d", str(int(name[7:10]))), prepare)
        bench.add(f"plan_experiment {name}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
