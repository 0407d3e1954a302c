"""Time until a command has printed its help, and until nnUNetv2_train enters its first iteration.

The second is taken from the start of the process to the first call of `train_step`, in which the first batch is at hand:
imports, search of the trainer, network, workers and the first batch are in it, the iteration is not.
"""

from __future__ import annotations

import time
from operator import methodcaller
from pathlib import Path

from common import HERE, Bench, Measurement, Side, port_trainer

COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder", "nnUNetv2_plan_and_preprocess")


def first_iteration(side: Side, dataset: str, configuration: str) -> Measurement:
    """Seconds from the start of nnUNetv2_train to its first training step."""
    output = side.folder / "first_iteration"
    variables = {
        "nnUNet_extTrainer": str(port_trainer(HERE / "trainers" / "starting_trainer.py", side)),
        "BENCHMARK_OUTPUT": str(output),
    }
    flags = ("-tr", "StartingTrainer", "-device", "cpu")
    start = time.time()
    measurement = side.run("nnUNetv2_train", str(int(dataset[7:10])), configuration, "0", *flags, **variables)
    return measurement._replace(seconds=float(output.read_text()) - start)


def main() -> None:
    """Measure -h of the commands and the start of a training."""
    bench = Bench(
        __doc__,
        ("--dataset", {"default": "Dataset004_Hippocampus"}),
        ("--configurations", {"nargs": "*", "default": ["3d_fullres"]}),
        ("--commands", {"nargs": "*", "default": list(COMMANDS)}),
        repeats=5,
    )
    args = bench.args
    for command in args.commands:
        bench.add(f"{command} -h", bench.alternate(methodcaller("run", command, "-h")))
    if args.configurations:
        bench.documents(args.dataset, "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json")
    for configuration in args.configurations:
        for side in bench.sides:
            ready: Path = side.preprocessed / args.dataset / f"nnUNetPlans_{configuration}"
            if not ready.is_dir():
                side.run("nnUNetv2_preprocess", "-d", str(int(args.dataset[7:10])), "-c", configuration, "-np", "2")

        def run(side: Side, configuration: str = configuration) -> Measurement:
            return first_iteration(side, args.dataset, configuration)

        bench.add(
            f"start of nnUNetv2_train to the first iteration, {args.dataset} {configuration}", bench.alternate(run)
        )
    bench.finish()


if __name__ == "__main__":
    main()
