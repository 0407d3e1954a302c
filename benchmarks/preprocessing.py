"""nnUNetv2_preprocess with two processes, from upstream's recorded plans, configurations as far as these have them."""

from __future__ import annotations

import json
from operator import methodcaller

from common import Bench, Side, remove


def main() -> None:
    """Measure the datasets and configurations asked for."""
    bench = Bench(
        __doc__,
        ("--datasets", {"nargs": "+", "default": ["Dataset900_Torso", "Dataset004_Hippocampus"]}),
        ("--configurations", {"nargs": "+", "default": ["3d_fullres", "3d_lowres"], "help": "in one run"}),
    )
    for name in bench.args.datasets:
        bench.documents(name, "dataset_fingerprint.json", "nnUNetPlans.json")
        planned = json.loads((bench.ours.preprocessed / name / "nnUNetPlans.json").read_text())["configurations"]
        configurations = [asked for asked in bench.args.configurations if asked in planned]

        def prepare(side: Side, name: str = name, configurations: list[str] = configurations) -> None:
            for configuration in configurations:
                remove(side.preprocessed / name / f"nnUNetPlans_{configuration}")

        run = methodcaller("run", "nnUNetv2_preprocess", "-d", str(int(name[7:10])), "-c", *configurations, "-np", "2")
        found = bench.alternate(run, prepare)
        bench.add(f"preprocess {' + '.join(configurations)} {name}", found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
