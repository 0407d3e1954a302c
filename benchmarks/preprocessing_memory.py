"""What a worker really takes to preprocess a case, beside what was estimated from the image's header."""

from __future__ import annotations

import json

from common import MIB, Bench

ESTIMATE = """
import json, sys
from nnunet_lite.plans.plans_manager import PlansManager, plans_file
from nnunet_lite.plans.raw_dataset import RawDataset
from nnunet_lite.preprocessing.resume import estimate_memory
name, configuration = sys.argv[1:]
dataset, plans = RawDataset.load(name), PlansManager(plans_file(name, "nnUNetPlans"))
chosen = plans.get_configuration(configuration)
print(json.dumps({i: estimate_memory(c.images, plans, chosen) for i, c in dataset.cases.items()}))
"""
WORK = """
import sys
from nnunet_lite.plans.plans_manager import PlansManager, plans_file
from nnunet_lite.plans.raw_dataset import RawDataset
from nnunet_lite.preprocessing.default_preprocessor import DefaultPreprocessor
name, configuration, identifier, target = sys.argv[1:]
case = RawDataset.load(name).cases[identifier]
plans = PlansManager(plans_file(name, "nnUNetPlans"))
DefaultPreprocessor(False).run_case_save(
    target, case.images, case.label, plans, plans.get_configuration(configuration), plans_file(name, "dataset")
)
"""


def main() -> None:
    """Measure the datasets asked for, each case in a process of its own."""
    bench = Bench(
        __doc__,
        ("--datasets", {"nargs": "+", "default": ["Dataset900_Torso", "Dataset116_TotalSegCT"]}),
        ("--configuration", {"default": "3d_fullres"}),
        ("--cases", {"type": int, "default": 4, "help": "of each dataset (default: %(default)s)"}),
        ("--spacing", {"nargs": 3, "help": "target spacing in mm instead of the planned one"}),
    )
    ours, configuration = bench.ours, bench.args.configuration
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    print("| case | estimated | taken | ratio | seconds |\n|---|---|---|---|---|")
    for name in bench.args.datasets:
        bench.dataset(name)
        spacing = ["-overwrite_target_spacing", *bench.args.spacing] if bench.args.spacing else []
        ours.run("nnUNetv2_plan_and_preprocess", "-d", name, "--no_pp", "-npfp", "1", *spacing)
        estimates = json.loads(ours.run("python", "-c", ESTIMATE, name, configuration).output)
        target = ours.folder / "case"
        for identifier in list(estimates)[: bench.args.cases]:
            found = ours.run("python", "-c", WORK, name, configuration, identifier, str(target), **environment)
            estimated, taken = estimates[identifier] / MIB, found.peak / MIB
            print(
                f"| {name} {identifier} | {estimated:.0f} MiB | {taken:.0f} MiB | {estimated / taken:.2f} | "
                f"{found.seconds:.1f} s |",
                flush=True,
            )
    bench.finish()


if __name__ == "__main__":
    main()
