"""Models as cross-validation leaves them, without training: references, validation predictions, probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.utilities.files import save_pickle

NAME = "Dataset041_Blobs"
STUFF = {"spacing": (1.0, 2.0, 3.0), "origin": (5.0, 6.0, 7.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
LABELS = {"background": 0, "one": 1, "two": 2}
SPLITS = (("a", "b"), ("c",))  # validation cases of two folds


def documents(labels: dict[str, Any] = LABELS, order: list[int] | None = None) -> dict[str, Any]:
    """dataset.json and plans.json of a dataset with a cascade."""
    configurations = {
        "2d": {},
        "3d_lowres": {},
        "3d_fullres": {},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    dataset = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}, "regions_class_order": order}
    plans = {"dataset_name": NAME, "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO"}
    return {"dataset.json": dataset, "plans.json": {**plans, "configurations": configurations}}


def write_documents(folder: Path, content: dict[str, Any]) -> None:
    """Write dataset.json and plans.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in content.items():
        (folder / name).write_text(json.dumps(document))


def make_references(raw: Path, preprocessed: Path, content: dict[str, Any]) -> None:
    """Labels of three cases: two blobs that do not touch; and the plans."""
    write_documents(preprocessed / NAME, {"nnUNetPlans.json": content["plans.json"]})
    for folder in (raw / NAME / "labelsTr", preprocessed / NAME / "gt_segmentations"):
        folder.mkdir(parents=True)
        for number, case in enumerate("abc"):
            write_labels(folder / f"{case}.nii.gz", reference(number))


def reference(number: int) -> NDArray[np.uint8]:
    """Labels (z, y, x) of a case."""
    labels = np.zeros((3, 12, 14), np.uint8)
    labels[:, 2:5, 1 + number : 5 + number] = 1
    labels[:, 7:11, 6:11] = 2
    return labels


def write_labels(file: Path, labels: NDArray[Any]) -> None:
    """Write a label map with a geometry of its own."""
    SimpleITKIO().write_seg(labels, str(file), {"sitk_stuff": STUFF})


def make_model(
    results: Path,
    references: Path,
    configuration: str,
    errors: int,
    content: dict[str, Any],
    probabilities: bool = True,
    seed: int = 0,
) -> Path:
    """A model whose validation predictions differ from the references in some voxels of each case."""
    folder = results / NAME / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    write_documents(folder, content)
    rng = np.random.default_rng(seed)
    for fold, cases in enumerate(SPLITS):
        validation = folder / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        (validation.parent / "checkpoint_final.pth").write_bytes(b"weights")
        for case in cases:
            labels = reference("abc".index(case))
            wrong = rng.choice(labels.size, errors, replace=False)
            labels.reshape(-1)[wrong] = rng.integers(0, 3, errors)
            channels = rng.random((3, *labels.shape)).astype(np.float32) * 0.3
            np.put_along_axis(channels, labels[None].astype(int), 0.5, 0)
            write_labels(validation / f"{case}.nii.gz", labels)
            if probabilities:
                np.savez_compressed(validation / f"{case}.npz", probabilities=channels / channels.sum(0))
                save_pickle({"sitk_stuff": STUFF, "spacing": [3.0, 2.0, 1.0]}, validation / f"{case}.pkl")
        arguments = (SimpleITKIO(), ".nii.gz", [1, 2])
        compute_metrics_on_folder(references, validation, validation / "summary.json", *arguments, num_processes=0)
    return folder
