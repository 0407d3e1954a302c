"""From raw images to evaluated predictions on the demo's dataset, through the functions that the commands call."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nnunet_lite.configuration import cpu_count
from nnunet_lite.demo.dataset import DATASET_NAME, LABELS, make_dataset
from nnunet_lite.demo.figure import save_comparison
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder2
from nnunet_lite.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.models.model_names import get_output_folder
from nnunet_lite.training.run_training import run_training
from nnunet_lite.utilities.files import subfiles
from nnunet_lite.utilities.wording import counted

CONFIGURATION, FOLD = "3d_fullres", 0


class DemoSettings(NamedTuple):
    """How much of everything; the defaults take a few minutes on two cores."""

    training_cases: int = 12
    test_cases: int = 3
    scale: float = 1.0
    epochs: int = 6
    iterations: int = 50
    seed: int = 1


def run_demo(folder: Path, device: torch.device, settings: DemoSettings | None = None) -> dict[str, Any]:
    """Make the dataset, plan, preprocess, train one fold, predict the test cases, evaluate, draw.

    Everything lies below `folder`; what is there already is kept, so calling this again continues.

    Returns:
        the content of summary.json of the test cases.
    """
    settings = settings or DemoSettings()
    with _folders_below(folder) as raw_folder:
        stopwatch = _Stopwatch()
        raw = make_dataset(raw_folder, settings.training_cases, settings.test_cases, settings.scale)
        stopwatch.lap(f"dataset: {settings.training_cases} training and {settings.test_cases} test cases")
        plans_name = _plan_and_preprocess()
        stopwatch.lap("planned and preprocessed")
        model_folder = _train(plans_name, device, settings)
        done = f"{counted(settings.epochs, 'epoch')} of {counted(settings.iterations, 'iteration')}"
        stopwatch.lap(f"trained {done} on {device.type}")
        predictions = folder / "predictions"
        _predict(model_folder, raw / "imagesTs", predictions, device)
        stopwatch.lap("test cases predicted")
        results = compute_metrics_on_folder2(
            raw / "labelsTs", predictions, raw / "dataset.json", predictions / "plans.json", num_processes=cpu_count()
        )
        _draw(raw, predictions, results, folder)
        stopwatch.lap("evaluated and drawn")
    print(format_table(results), f"\nPictures, model, predictions and summary.json lie in {folder}", sep="\n")
    return results


class _Stopwatch:
    """Says how long each stage took."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        """Print the stage that just ended, its seconds and all seconds so far."""
        now = time.perf_counter()
        print(f"[{now - self._start:5.0f} s] {what} ({now - self._last:.1f} s)", flush=True)
        self._last = now


@contextlib.contextmanager
def _folders_below(folder: Path) -> Iterator[Path]:
    """nnU-Net's three folders below one, set in the environment for the time being; yields the one for raw data."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str((folder / name).resolve())
    try:
        yield folder / names[0]
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _plan_and_preprocess() -> str:
    """Returns the name of the plans."""
    processes = cpu_count()
    extract_fingerprints(
        [DATASET_NAME],
        num_processes=processes,
        check_dataset_integrity=True,
        clean=False,
        verbose=False,
        show_progress_bar=False,
    )
    plans_name = plan_experiments([DATASET_NAME])
    preprocess([DATASET_NAME], plans_name, [CONFIGURATION], processes, show_progress_bar=False)
    return plans_name


def _train(plans_name: str, device: torch.device, settings: DemoSettings) -> str:
    """Train one fold, or continue, or keep what is finished; returns the model folder."""
    trainer = f"nnUNetTrainer_e{settings.epochs}_i{settings.iterations}_s{settings.seed}"  # as run_training names it
    model_folder = get_output_folder(DATASET_NAME, trainer, plans_name, CONFIGURATION)
    fold_folder = Path(model_folder, f"fold_{FOLD}")
    if not (fold_folder / "validation" / "summary.json").exists():
        run_training(
            DATASET_NAME,
            CONFIGURATION,
            FOLD,
            plans_identifier=plans_name,
            device=device,
            continue_training=any(fold_folder.glob("checkpoint_*.pth")),
            epochs=settings.epochs,
            iterations=settings.iterations,
            seed=settings.seed,
        )
    return model_folder


def _predict(model_folder: str, images: Path, predictions: Path, device: torch.device) -> None:
    predictor = nnUNetPredictor(device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model_folder, use_folds=(FOLD,))
    predictor.predict_from_files(
        images, predictions, overwrite=False, num_processes_preprocessing=1, num_processes_segmentation_export=1
    )


def _draw(raw: Path, predictions: Path, results: dict[str, Any], folder: Path) -> None:
    """A picture of every test case."""
    reader = SimpleITKIO()
    for case, file in zip(results["metric_per_case"], subfiles(raw / "imagesTs"), strict=True):
        name = Path(case["prediction_file"]).name
        image, properties = reader.read_images([file])
        reference, prediction = (reader.read_seg(case[key])[0] for key in ("reference_file", "prediction_file"))
        dice = ", ".join(f"{label} {case['metrics'][value]['Dice']:.3f}" for label, value in LABELS.items() if value)
        save_comparison(
            image[0],
            reference[0],
            prediction[0],
            properties["spacing"],
            folder / name.replace(".nii.gz", ".png"),
            f"{name}: Dice {dice}",
        )


def format_table(results: dict[str, Any]) -> str:
    """Dice per case and structure, and the means, as plain text."""
    structures = {label: value for label, value in LABELS.items() if value}
    rows = [["Dice", *structures]]
    for case in results["metric_per_case"]:
        values = [case["metrics"][value]["Dice"] for value in structures.values()]
        rows.append([Path(case["prediction_file"]).name.removesuffix(".nii.gz"), *(f"{dice:.3f}" for dice in values)])
    rows.append(["mean", *(f"{results['mean'][value]['Dice']:.3f}" for value in structures.values())])
    lines = ["  ".join(cell.rjust(9) for cell in row) for row in rows]
    return "\n".join(["", *lines, "", f"mean foreground Dice {results['foreground_mean']['Dice']:.3f}"])
