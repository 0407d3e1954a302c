"""One CPU training iteration: everything, the network alone, the data alone; through the same trainer on both sides.

Upstream computes in float32 on a CPU. Ours is asked for bf16 and for float32 (--precision).
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from common import HERE, Bench, Side, port_trainer

PARTS = {"all": "TimedTrainer", "network": "TimedNetworkTrainer", "data": "TimedDataTrainer"}


def iteration(side: Side, name: str, configuration: str, trainer: str, iterations: int, flags: list[str]) -> float:
    """Median seconds of an iteration, the first two left out (threads, caches and workers warm up)."""
    output = side.folder / "seconds.json"
    variables = {
        "nnUNet_extTrainer": str(port_trainer(HERE / "trainers" / "timed_trainers.py", side)),
        "BENCHMARK_ITERATIONS": str(iterations + 2),
        "BENCHMARK_OUTPUT": str(output),
    }
    if trainer == PARTS["network"]:
        variables["nnUNet_n_proc_DA"] = "0"  # no workers in the background
    side.run(
        "nnUNetv2_train",
        str(int(name[7:10])),
        configuration,
        "0",
        "-tr",
        trainer,
        "-device",
        "cpu",
        *flags,
        **variables,
    )
    return median(json.loads(output.read_text())[2:])


def main() -> None:
    """Measure the three parts."""
    bench = Bench(
        __doc__,
        ("--dataset", {"default": "Dataset004_Hippocampus"}),
        ("--configuration", {"default": "3d_fullres"}),
        ("--iterations", {"type": int, "default": 6}),
        ("--parts", {"nargs": "+", "default": list(PARTS), "choices": list(PARTS)}),
        ("--precisions", {"nargs": "+", "default": ["bf16", "float32"]}),
        repeats=1,
    )
    args = bench.args
    bench.documents(args.dataset, "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json")
    for side in bench.sides:
        ready: Path = side.preprocessed / args.dataset / f"nnUNetPlans_{args.configuration}"
        if not ready.is_dir():
            side.run("nnUNetv2_preprocess", "-d", str(int(args.dataset[7:10])), "-c", args.configuration, "-np", "2")
    for part in args.parts:
        seconds: dict[str, list[float]] = {}
        for _ in range(args.repeats):
            for side in bench.sides:
                precisions = ["float32"] if side is bench.upstream or part == "data" else args.precisions
                for precision in precisions:
                    flags = ["--precision", precision] if side is bench.ours else []
                    seconds.setdefault(f"{side.name} {precision}", []).append(
                        iteration(side, args.dataset, args.configuration, PARTS[part], args.iterations, flags)
                    )
        best = {key: min(runs) for key, runs in seconds.items()}
        for key in [key for key in best if key.startswith("ours")] or ["upstream float32"]:
            values = {
                name: best[entry]
                for name, entry in (("upstream", "upstream float32"), ("ours", key))
                if entry in best and (name == "upstream" or entry.startswith("ours"))
            }
            what = f", ours in {key.split()[1]}" if key.startswith("ours") else ""
            bench.row(f"one iteration {args.configuration} {args.dataset}, {part}{what}", values)
    bench.finish()


if __name__ == "__main__":
    main()
