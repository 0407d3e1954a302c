"""What limits a training on this machine: an iteration as a whole, the network alone, the data alone.

Runs our trainer on synthetic data of any patch size, or on a preprocessed dataset (--data). Needs none of the packages
that read images or draw pictures (SimpleITK, scikit-image, matplotlib).

    python training.py --patch-size 128 128 128 --batch-size 2 --workers 4 12
    python training.py --data $nnUNet_preprocessed/Dataset004_Hippocampus --configuration 3d_fullres

The whole iteration is a loop as the trainer's; the network alone repeats one batch that lies on the device; the data
alone are drawn and thrown away. Where --cores is given, only so many are used.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SLACK = 1.05  # ratio below which two times are called equal


class Result(NamedTuple):
    """Seconds per iteration."""

    workers: int
    data: float
    network: float
    whole: float
    wait: float  # of the whole: the host waits for the next batch

    def verdict(self) -> str:
        """What limits, and what to do about it."""
        if self.workers == 0:
            return "data and network take turns, because there are no workers"
        above = f"the whole takes {100 * (self.whole / self.network - 1):.0f} % more than the network alone"
        if self.data > self.network * SLACK:
            return f"limited by data; {above}: use more workers, faster storage, or augmentation on the GPU"
        if self.whole > self.network * 1.1:
            return f"limited by what both share (processor, copies); {above}: look at --profile"
        return f"limited by the network; {above}"


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is one")
    parser.add_argument("--data", type=Path, help="folder of a dataset in nnUNet_preprocessed (default: synthetic)")
    parser.add_argument("--configuration", default="3d_fullres", help="of --data")
    parser.add_argument("--plans", default="nnUNetPlans", help="of --data")
    parser.add_argument("--trainer", default="nnUNetTrainer")
    parser.add_argument("--patch-size", type=int, nargs="+", default=[128, 128, 128], help="of synthetic data")
    parser.add_argument("--batch-size", type=int, default=2, help="of synthetic data")
    parser.add_argument("--channels", type=int, default=1, help="of synthetic data")
    parser.add_argument("--classes", type=int, default=3, help="of synthetic data, with background")
    parser.add_argument("--features", type=int, default=32, help="of the first stage, for synthetic data")
    parser.add_argument("--cases", type=int, default=8, help="number of synthetic images")
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of workers to try (default: nnUNet_n_proc_DA)")
    parser.add_argument("--cores", type=int, help="use so many processor cores")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bf16", "fp16"))
    parser.add_argument("--layout", choices=("contiguous", "channels_last"), help="of the network (default: automatic)")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5, help="iterations that are not counted")
    parser.add_argument("--profile", action="store_true", help="print where the network's time goes")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    return parser.parse_args()


def make_trainer(args: argparse.Namespace, folder: Path, configuration: str) -> Any:
    """A trainer that writes nothing but its log and documents, to a temporary folder."""
    import torch

    from nnunet_lite.training.run_training import get_trainer_from_args
    from nnunet_lite.utilities.device import set_num_threads

    device = torch.device(args.device)
    trainer = get_trainer_from_args(folder.name, configuration, "all", args.trainer, args.plans, device)
    trainer.override(epochs=1000, iterations=10**6, seed=0, precision=args.precision)
    trainer.disable_checkpointing = True
    if args.layout is not None:
        trainer.channels_last = args.layout == "channels_last"
    set_num_threads(device)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def synchronize(trainer: Any) -> None:
    """Wait for the device."""
    import torch

    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    elif trainer.device.type == "mps":
        torch.mps.synchronize()


def per_iteration(trainer: Any, step: Callable[[], object], warm_up: int, iterations: int) -> float:
    """Seconds per call of `step`."""
    for _ in range(warm_up):
        step()
    synchronize(trainer)
    start = time.perf_counter()
    for _ in range(iterations):
        step()
    synchronize(trainer)
    return (time.perf_counter() - start) / iterations


def measure(trainer: Any, args: argparse.Namespace, workers: int) -> Result:
    """The three times of one trainer."""
    waited: list[float] = []

    def draw() -> Any:
        start = time.perf_counter()
        batch = trainer._next_batch(trainer.dataloader_train)
        waited.append(time.perf_counter() - start)
        return batch

    def iteration(batch: Any = None) -> None:
        trainer.epoch_outputs.append(trainer.train_step(draw() if batch is None else batch))

    ahead = 3 * workers + 2  # batches that may have been made before
    warm_up, number = max(args.warm_up, ahead), max(args.iterations, ahead)
    whole = per_iteration(trainer, iteration, warm_up, number)
    wait = sum(waited[-number:]) / number
    batch = draw()
    batch["data"], batch["target"] = trainer._on_device(batch)
    network = per_iteration(trainer, lambda: iteration(batch), args.warm_up, args.iterations)
    return Result(workers, per_iteration(trainer, draw, warm_up, number), network, whole, wait)


def phases(trainer: Any, repeats: int = 3) -> dict[str, float]:
    """Seconds of the parts of an iteration, one after the other; reading and augmentation in one thread."""
    import torch

    from nnunet_lite.utilities.device import autocast, num_threads

    seconds: dict[str, float] = {}

    def timed(what: str, run: Callable[[], Any]) -> Any:
        synchronize(trainer)
        start = time.perf_counter()
        result = run()
        synchronize(trainer)
        seconds[what] = min(seconds.get(what, float("inf")), time.perf_counter() - start)
        return result

    loader = trainer.dataloader_train.loader
    for index in range(repeats):
        with num_threads(1):
            raw = timed("read", lambda index=index: loader.read_batch(0, index))
            batch = timed("augment", lambda raw=raw: loader.augment(raw))
        data, target = timed("copy to the device", lambda batch=batch: trainer._on_device(batch))
        with autocast(trainer.device, trainer._autocast_type):
            output = timed("forward", lambda data=data: trainer.network(data))
            loss = timed("loss", lambda output=output, target=target: trainer.loss(output, target))
        timed("backward", loss.backward)
        timed("clip", lambda: torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12))
        timed("update", trainer.optimizer.step)
        trainer.optimizer.zero_grad(set_to_none=True)
    return seconds


def profile(trainer: Any) -> None:
    """Print what the device and the host spend their time on in three iterations of the network."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    batch = trainer._next_batch(trainer.dataloader_train)
    on_cuda = trainer.device.type == "cuda"
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as found:
        for _ in range(3):
            trainer.train_step(batch)
        synchronize(trainer)
    events = found.key_averages()
    device = "self_device_time_total" if hasattr(events[0], "self_device_time_total") else "self_cuda_time_total"
    key = device if on_cuda else "self_cpu_time_total"
    print(events.table(sort_by=key, row_limit=25, max_name_column_width=70))


def about(trainer: Any) -> dict[str, Any]:
    """What was measured on."""
    import torch

    from nnunet_lite.configuration import cpu_count

    on_cuda = trainer.device.type == "cuda"
    configuration = trainer.configuration_manager
    return {
        "device": torch.cuda.get_device_name(trainer.device) if on_cuda else trainer.device.type,
        "torch": torch.__version__,
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "patch": list(configuration.patch_size),
        "batch": trainer.batch_size,
        "precision": str(trainer._autocast_type or torch.float32),
        "compiled": hasattr(trainer.network, "_orig_mod"),
        "channels last": trainer.uses_channels_last,
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
    }


def main() -> None:
    """Measure and print."""
    args = parse()
    if args.cores:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.cores]))
    if args.no_compile:
        os.environ["nnUNet_compile"] = "false"
    with tempfile.TemporaryDirectory(prefix="nnunet_lite_training_") as work:
        results, phase_seconds, machine = run(args, Path(work))
    if args.json:
        figures = {"results": [result._asdict() for result in results], "phases": phase_seconds, "machine": machine}
        args.json.write_text(json.dumps(figures, indent=4))


def run(args: argparse.Namespace, work: Path) -> tuple[list[Result], dict[str, float], dict[str, Any]]:
    """All numbers of workers, one after the other."""
    for variable in ("nnUNet_raw", "nnUNet_results"):
        os.environ[variable] = str(work / variable)
    os.environ["nnUNet_preprocessed"] = str(args.data.resolve().parent if args.data else work)

    import torch

    from nnunet_lite.configuration import num_processes_data_augmentation

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder, configuration = args.data and args.data.resolve(), args.configuration
    if folder is None:
        from synthetic_dataset import NAME, write_dataset

        folder = work / NAME
        configuration = write_dataset(
            work, args.patch_size, args.batch_size, args.channels, args.classes, args.cases, args.features
        )
    results: list[Result] = []
    phase_seconds: dict[str, float] = {}
    machine: dict[str, Any] = {}
    for workers in args.workers or [num_processes_data_augmentation()]:
        os.environ["nnUNet_n_proc_DA"] = str(workers)
        trainer = make_trainer(args, folder, configuration)
        try:
            machine = machine or about(trainer)
            result = measure(trainer, args, num_processes_data_augmentation())
            results.append(result)
            phase_seconds = phase_seconds or phases(trainer)
            if args.profile and len(results) == 1:
                profile(trainer)
        finally:
            trainer._close_dataloaders()
    report(results, phase_seconds, machine)
    return results, phase_seconds, machine


def report(results: list[Result], phase_seconds: dict[str, float], machine: dict[str, Any]) -> None:
    """Print the tables."""
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    print("\n| workers | data alone | network alone | whole | waits for data | verdict |\n|---|---|---|---|---|---|")
    for one in results:
        cells = " | ".join(f"{1000 * value:.1f} ms" for value in (one.data, one.network, one.whole, one.wait))
        print(f"| {one.workers} | {cells} | {one.verdict()} |")
    print("\nParts of an iteration, one after the other (reading and augmentation: one thread)")
    for what, seconds in phase_seconds.items():
        print(f"  {what:20s} {1000 * seconds:8.1f} ms")


if __name__ == "__main__":
    main()
