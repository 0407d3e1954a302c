"""What lower precision changes: label maps of one model in float32, bf16 and fp16, and their Dice with the truth.

Ours alone. usage: precision_agreement.py MODEL_FOLDER FOLD CHECKPOINT DATASET_FOLDER [--cases N] [--mirroring]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_lite import nnUNetPredictor
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.raw_dataset import get_filenames_of_train_images_and_targets

TYPES: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def overlap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean Dice of two label maps over the labels that either has."""
    values = [label for label in np.union1d(np.unique(first), np.unique(second)) if label]
    dice = []
    for label in values:
        one, two = first == label, second == label
        dice.append(2 * int((one & two).sum()) / int(one.sum() + two.sum()))
    return float(np.mean(dice)) if dice else 1.0


def main() -> None:
    """Print one line per precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("fold")
    parser.add_argument("checkpoint")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--mirroring", action="store_true")
    parser.add_argument("--fp16", action="store_true", help="also half precision, which the commands refuse on a CPU")
    args = parser.parse_args()
    everything = get_filenames_of_train_images_and_targets(args.dataset)
    chosen = dict(sorted(everything.items())[args.first : args.first + args.cases])
    document = json.loads((args.model / "dataset.json").read_text())
    print("| precision | cases | voxels | equal to float32 | Dice with float32 | Dice with the truth | network |")
    print("|" + "---|" * 7)
    exact: dict[str, NDArray[Any]] = {}
    for name, dtype in TYPES.items():
        if name == "fp16" and not args.fp16:
            continue
        predictor = nnUNetPredictor(device="cpu", use_mirroring=args.mirroring, allow_tqdm=False)
        predictor.autocast_dtype = dtype
        fold = args.fold if args.fold == "all" else int(args.fold)
        predictor.initialize_from_trained_model_folder(args.model, fold, args.checkpoint)
        with tempfile.TemporaryDirectory() as work:
            predictions, truth = Path(work, "predictions"), Path(work, "truth")
            for folder in (predictions, truth):
                folder.mkdir()
            start = time.perf_counter()
            outputs = [str(predictions / case) for case in chosen]
            predictor.predict_from_files([entry["images"] for entry in chosen.values()], outputs, False, True, 0, 0)
            seconds = time.perf_counter() - start
            ending = document["file_ending"]
            reader = predictor.plans_manager.image_reader_writer_class()
            found = {case: reader.read_seg(str(predictions / f"{case}{ending}"))[0] for case in chosen}
            for case, entry in chosen.items():
                (truth / f"{case}{ending}").symlink_to(Path(entry["label"]).resolve())
            manager: LabelManager = predictor.label_manager
            summary = compute_metrics_on_folder(
                str(truth),
                str(predictions),
                None,
                reader,
                ending,
                manager.foreground_regions if manager.has_regions else manager.foreground_labels,
                manager.ignore_label,
                num_processes=1,
            )
        exact = exact or found
        voxels = sum(array.size for array in found.values())
        equal = sum(int((array == exact[case]).sum()) for case, array in found.items())
        dice = np.mean([overlap(exact[case], array) for case, array in found.items()])
        mean = summary["foreground_mean"]["Dice"]
        print(f"| {name} | {len(found)} | {voxels} | {equal / voxels:.3%} | {dice:.4f} | {mean:.4f} | {seconds:.1f} s |")


if __name__ == "__main__":
    main()
