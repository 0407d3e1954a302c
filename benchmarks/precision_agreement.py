"""What lower precision changes: label maps of one model in float32, bf16 and fp16, and their Dice with the truth.

Ours alone. usage: precision_agreement.py MODEL_FOLDER FOLD CHECKPOINT DATASET_FOLDER [--cases N] [--mirroring]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_lite import nnUNetPredictor
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
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


def predict(
    args: argparse.Namespace, cases: Mapping[str, Any], dtype: torch.dtype | None, work: Path
) -> tuple[dict[str, NDArray[Any]], float, float]:
    """Label maps by case, mean Dice with the truth, and seconds of everything."""
    predictor = nnUNetPredictor(device="cpu", use_mirroring=args.mirroring, allow_tqdm=False)
    predictor.autocast_dtype = dtype
    fold = args.fold if args.fold == "all" else int(args.fold)
    predictor.initialize_from_trained_model_folder(args.model, fold, args.checkpoint)
    predictions, truth = work / "predictions", work / "truth"
    for folder in (predictions, truth):
        folder.mkdir()
    start = time.perf_counter()
    outputs = [str(predictions / case) for case in cases]
    predictor.predict_from_files([entry["images"] for entry in cases.values()], outputs, False, True, 0, 0)
    seconds = time.perf_counter() - start
    ending = predictor.dataset_json["file_ending"]
    reader = predictor.plans_manager.image_reader_writer_class()
    for case, entry in cases.items():
        (truth / f"{case}{ending}").symlink_to(Path(entry["label"]).resolve())
    manager = predictor.label_manager
    classes = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    folders = (str(truth), str(predictions), None)
    summary = compute_metrics_on_folder(*folders, reader, ending, classes, manager.ignore_label, num_processes=1)
    found = {case: reader.read_seg(str(predictions / f"{case}{ending}"))[0] for case in cases}
    return found, summary["foreground_mean"]["Dice"], seconds


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
    cases = dict(sorted(everything.items())[args.first : args.first + args.cases])
    print("| precision | cases | voxels | equal to float32 | Dice with float32 | Dice with the truth | seconds |")
    print("|" + "---|" * 7)
    exact: dict[str, NDArray[Any]] = {}
    for name, dtype in TYPES.items():
        if name == "fp16" and not args.fp16:
            continue
        with tempfile.TemporaryDirectory() as work:
            found, truth, seconds = predict(args, cases, dtype, Path(work))
        exact = exact or found
        voxels = sum(array.size for array in found.values())
        equal = sum(int((array == exact[case]).sum()) for case, array in found.items()) / voxels
        dice = np.mean([overlap(exact[case], array) for case, array in found.items()])
        print(
            f"| {name} | {len(found)} | {voxels} | {equal:.3%} | {dice:.4f} | {truth:.4f} | {seconds:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
