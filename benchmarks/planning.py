"""nnUNetv2_plan_experiment, from upstream's recorded fingerprints."""

from __future__ import annotations

from functools import partial

from common import Bench, Measurement, Side, remove
from parity_plans import PLANNERS

ROWS = (
    ("Dataset004_Hippocampus", "ExperimentPlanner"),
    ("Dataset900_Torso", "ExperimentPlanner"),
    ("Dataset900_Torso", "nnUNetPlannerResEncM"),
    ("Dataset900_Torso", "nnUNetPlannerResEncL"),
    ("Dataset900_Torso", "nnUNetPlannerResEncXL"),
)


def plan(side: Side, name: str, planner: str) -> Measurement:
    """One call of the command."""
    return side.run("nnUNetv2_plan_experiment", "-d", str(int(name[7:10])), "-pl", planner)


def main() -> None:
    """Measure Dataset004 and the torso phantom, the latter with the residual encoder presets, too."""
    bench = Bench(__doc__)
    for name, planner in ROWS:
        bench.documents(name, "dataset_fingerprint.json")

        def prepare(side: Side, name: str = name, planner: str = planner) -> None:
            remove(side.preprocessed / name / f"{PLANNERS[planner]}.json")

        found = bench.alternate(partial(plan, name=name, planner=planner), prepare)
        bench.add(f"plan_experiment {name} {planner}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
