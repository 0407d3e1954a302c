"""Time until a command has printed its help, and until nnUNetv2_train enters its first iteration.

The second is taken from the start of the process to the first call of `train_step`, when the first batch is at hand:
imports, search of the trainer, network, workers and the first batch are in it, the iteration is not. Beside it the
seconds of processor that the main process took for it, which depend less on what else runs on the machine.
"""

from __future__ import annotations

import json
import time
from functools import partial
from operator import methodcaller
from pathlib import Path

from common import HERE, Bench, Measurement, Side, port_trainer

COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder", "nnUNetv2_plan_and_preprocess")


def first_iteration(side: Side, dataset: str, configuration: str, processor: dict[str, list[float]]) -> Measurement:
    """Seconds from the start of nnUNetv2_train to its first training step; those of the processor are appended."""
    output = side.folder / "first_iteration"
    variables = {
        "nnUNet_extTrainer": str(port_trainer(HERE / "trainers" / "starting_trainer.py", side)),
        "BENCHMARK_OUTPUT": str(output),
    }
    flags = ("-tr", "StartingTrainer", "-device", "cpu")
    start = time.time()
    measurement = side.run("nnUNetv2_train", str(int(dataset[7:10])), configuration, "0", *flags, **variables)
    entered, used = json.loads(output.read_text())
    processor.setdefault(side.name, []).append(used)
    return measurement._replace(seconds=entered - start)


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
        used: dict[str, list[float]] = {}
        what = f"start of nnUNetv2_train to the first iteration, {args.dataset} {configuration}"
        run = partial(first_iteration, dataset=args.dataset, configuration=configuration, processor=used)
        bench.add(what, bench.alternate(run))
        bench.row(f"{what}, processor", {name: min(seconds) for name, seconds in used.items()})
    bench.finish()


if __name__ == "__main__":
    main()
