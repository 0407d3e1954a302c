"""For comparisons of what comes after prediction: probabilities, labels and whole cross-validations without training.

A synthetic model sees the reference blurred, shifted by a voxel or two, with noise and with stray blobs of every class,
so that ensembles differ from their members and postprocessing has something to decide.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager

Document = dict[str, Any]


def probabilities_of(
    reference: NDArray[Any], labels: LabelManager, rng: np.random.Generator, strays: int = 3
) -> NDArray[np.float32]:
    """Probabilities (heads, d0, d1, d2) of a model that nearly sees the reference (d0, d1, d2)."""
    seen = np.roll(reference, rng.integers(-2, 3, 2), (-2, -1))
    seen = seen.copy()
    for label in labels.foreground_labels:
        for _ in range(int(rng.integers(0, strays + 1))):
            corner = [int(rng.integers(0, max(1, edge - 3))) for edge in seen.shape]
            seen[tuple(slice(start, start + int(rng.integers(1, 4))) for start in corner)] = label
    entries = labels.foreground_regions if labels.has_regions else labels.all_labels
    channels = np.stack(
        [scipy.ndimage.gaussian_filter(np.isin(seen, entry).astype(np.float32), 0.7) for entry in entries]
    )
    channels += rng.normal(0, 0.05, channels.shape).astype(np.float32)
    channels = np.clip(channels, 1e-4, 1 - 1e-4)
    return channels if labels.has_regions else channels / channels.sum(0, keepdims=True)


def write_prediction(
    reference_file: Path, target: Path, manager: PlansManager, dataset: Mapping[str, Any], seed: int
) -> None:
    """Write `target` + .npz, .pkl and file ending, as a prediction with --save_probabilities leaves them."""
    labels, reader = manager.get_label_manager(dataset), manager.image_reader_writer_class()
    reference, properties = reader.read_seg(str(reference_file))
    probabilities = probabilities_of(reference[0], labels, np.random.default_rng(seed))
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(f"{target}.npz", probabilities=probabilities)
    Path(f"{target}.pkl").write_bytes(pickle.dumps(properties, protocol=4))
    segmentation = np.asarray(labels.convert_probabilities_to_segmentation(probabilities))
    reader.write_seg(segmentation, f"{target}{dataset['file_ending']}", properties)


def write_folder(
    references: Sequence[Path], folder: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any], seed: int
) -> None:
    """Predictions of some cases with plans.json and dataset.json, as nnUNetv2_predict leaves a folder."""
    manager, ending = PlansManager(dict(plans)), dataset["file_ending"]
    for number, file in enumerate(references):
        case = file.name[: -len(ending)]
        write_prediction(file, folder / case, manager, dataset, 1000 * seed + number)
    write_documents(folder, plans, dataset)


def write_crossvalidation(
    references: Sequence[Path],
    model: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    seed: int,
    folds: int = 5,
) -> None:
    """A model folder as training of all folds with --npz leaves it, weights left out."""
    manager, ending = PlansManager(dict(plans)), dataset["file_ending"]
    labels = manager.get_label_manager(dataset)
    write_documents(model, plans, dataset)
    for number, file in enumerate(references):
        target = model / f"fold_{number % folds}" / "validation" / file.name[: -len(ending)]
        write_prediction(file, target, manager, dataset, 1000 * seed + number)
    for validation in model.glob("fold_*/validation"):
        compute_metrics_on_folder(
            references[0].parent,
            validation,
            validation / "summary.json",
            manager.image_reader_writer_class(),
            ending,
            labels.foreground_regions if labels.has_regions else labels.foreground_labels,
            labels.ignore_label,
            num_processes=0,
        )


def write_documents(folder: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """plans.json and dataset.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        (folder / name).write_text(json.dumps(content, indent=4))


def references_of(raw: Path, cases: int | None = None) -> list[Path]:
    """The first label maps of a raw dataset."""
    ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
    return sorted((raw / "labelsTr").glob(f"*{ending}"))[:cases]


def regions_from_lesions(source: Path, target: Path) -> None:
    """A region-based dataset with references of a lesion dataset: a rim around each lesion, and the lesion within."""
    dataset: Document = json.loads((source / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "whole": [1, 2], "core": 2}
    dataset["regions_class_order"] = [1, 2]
    shutil.rmtree(target, ignore_errors=True)
    (target / "labelsTr").mkdir(parents=True)
    (target / "dataset.json").write_text(json.dumps(dataset, indent=4))
    from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO

    for file in references_of(source):
        labels, properties = SimpleITKIO().read_seg(str(file))
        lesion = labels[0] > 0
        rim = scipy.ndimage.binary_dilation(lesion, iterations=3)
        SimpleITKIO().write_seg(
            (rim + lesion.astype(np.uint8)).astype(np.uint8), str(target / "labelsTr" / file.name), properties
        )
