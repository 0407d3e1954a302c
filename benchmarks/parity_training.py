"""Short trainings of both sides: same dataset, splits, epochs and iterations, several seeds; their validation Dice.

Runs of the same seed start from the same weights on both sides, so they can be compared pair by pair.

A run that is there already (in --work) is not repeated, so the script can be interrupted.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

from common import HERE, Bench, Side, port_trainer


def small_plans(side: Side, name: str, configuration: str, batch_size: int, width: int | None) -> str:
    """A copy of the plans with another batch size and narrower stages; returns its name."""
    folder = side.preprocessed / name
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["plans_name"] = f"batch{batch_size}Plans" if width is None else f"batch{batch_size}Width{width}Plans"
    chosen = plans["configurations"][configuration]
    chosen["batch_size"] = batch_size
    if width is not None:
        network = chosen["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [
            features * width // network["features_per_stage"][0] for features in network["features_per_stage"]
        ]
    (folder / f"{plans['plans_name']}.json").write_text(json.dumps(plans, indent=4))
    return str(plans["plans_name"])


def train(bench: Bench, side: Side, seed: int) -> dict[str, float]:
    """Dice per class and their mean from the final validation, training first where that is missing."""
    args = bench.args
    results: Path = side.folder / f"results_seed{seed}"
    results.mkdir(exist_ok=True)
    plans = small_plans(side, args.dataset, args.configuration, args.batch_size, args.width)
    found = list(results.glob(f"*/*__{plans}__{args.configuration}*/fold_0/validation/summary.json"))
    if not found:
        flags = ["--seed", str(seed), "--precision", args.precision] if side is bench.ours else []
        done = side.run(
            "nnUNetv2_train",
            str(int(args.dataset[7:10])),
            args.configuration,
            "0",
            "-tr",
            "ShortTrainer",
            "-p",
            plans,
            "-device",
            "cpu",
            *flags,
            nnUNet_results=str(results),
            nnUNet_def_n_proc="2",
            nnUNet_extTrainer=str(port_trainer(HERE / "trainers" / "short_trainers.py", side)),
            PARITY_EPOCHS=str(args.epochs),
            PARITY_ITERATIONS=str(args.iterations),
            PARITY_SEED=str(seed),
        )
        print(f"  {side.name}, seed {seed}: trained and validated in {done.seconds:.0f} s", flush=True)
        found = list(results.glob(f"*/*__{plans}__{args.configuration}*/fold_0/validation/summary.json"))
    summary = json.loads(found[0].read_text())
    dice = {key: values["Dice"] for key, values in summary["mean"].items()}
    return {**dice, "mean": summary["foreground_mean"]["Dice"]}


def main() -> None:
    """Train and print."""
    bench = Bench(
        __doc__,
        ("--dataset", {"default": "Dataset004_Hippocampus"}),
        ("--configuration", {"default": "3d_fullres"}),
        ("--epochs", {"type": int, "default": 5}),
        ("--iterations", {"type": int, "default": 30}),
        ("--batch-size", {"type": int, "default": 2, "dest": "batch_size"}),
        ("--width", {"type": int, "help": "features of the first stage (default: as planned)"}),
        ("--seeds", {"type": int, "default": 3}),
        ("--precision", {"default": "auto", "help": "of ours (default: %(default)s)"}),
        repeats=1,
    )
    args = bench.args
    bench.documents(args.dataset, "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json")
    for side in bench.sides:
        if not (side.preprocessed / args.dataset / f"nnUNetPlans_{args.configuration}").is_dir():
            side.run("nnUNetv2_preprocess", "-d", str(int(args.dataset[7:10])), "-c", args.configuration, "-np", "2")
    dices: dict[str, list[float]] = {side.name: [] for side in bench.sides}
    for seed in range(args.seeds):
        for side in bench.sides:
            dice = train(bench, side, seed)
            dices[side.name].append(dice["mean"])
            print(
                f"{side.name}, seed {seed}: " + ", ".join(f"{key} {value:.4f}" for key, value in dice.items()),
                flush=True,
            )
    for name, values in dices.items():
        print(f"{name}: mean {mean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
