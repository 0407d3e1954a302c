"""For comparisons of result folders: every file of one tree beside the file of the same name in another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing
from nnunet_lite.utilities.files import load_pickle

IMAGES = (".nii.gz", ".nrrd", ".mha")


def differences(upstream: Path, ours: Path, expected: Callable[[str], bool]) -> list[str]:
    """What differs between two trees, but for what is expected (said of a line of text)."""
    first, second = upstream, ours
    trees = [{file.relative_to(root) for file in visible_files(root)} for root in (first, second)]
    found = [f"only upstream has {name}" for name in sorted(trees[0] - trees[1])]
    found += [f"only ours has {name}" for name in sorted(trees[1] - trees[0])]
    for name in sorted(trees[0] & trees[1]):
        found += [f"{name}: {text}" for text in file_differences(first / name, second / name, (first, second))]
    return [text for text in found if not expected(text)]


def visible_files(root: Path) -> Iterator[Path]:
    """All files but hidden ones."""
    for file in root.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield file


def file_differences(first: Path, second: Path, roots: tuple[Path, Path]) -> list[str]:
    """What differs between two files, by their kind."""
    if first.name.endswith(IMAGES):
        return image_differences(first, second)
    if first.suffix == ".npz":
        one, two = (np.load(file)["probabilities"] for file in (first, second))
        if one.dtype != two.dtype or one.shape != two.shape:
            return [f"{one.dtype} {one.shape} and {two.dtype} {two.shape}"]
        return [] if np.array_equal(one, two) else [f"probabilities differ by up to {np.abs(one - two).max():.2g}"]
    if first.name == "postprocessing.pkl":
        pair = [load_postprocessing(file) for file in (first, second)]
        return [] if pair[0] == pair[1] else [f"{pair[0]} and {pair[1]}"]
    if first.suffix == ".pkl":
        pair = [load_pickle(file) for file in (first, second)]
        return [] if same(pair[0], pair[1]) else ["properties differ"]
    if first.suffix not in (".json", ".txt"):
        return [] if first.read_bytes() == second.read_bytes() else ["bytes differ"]
    texts = [file.read_text().replace(str(root), "ROOT") for file, root in zip((first, second), roots, strict=True)]
    if first.suffix == ".json":
        return value_differences(*(without_folders(json.loads(text)) for text in texts))
    if first.name == "inference_instructions.txt":
        texts = ["\n".join(line for line in text.splitlines() if line.startswith("nnUNetv2_")) for text in texts]
    return [] if texts[0] == texts[1] else [f"text differs:\n--- upstream\n{texts[0]}\n--- ours\n{texts[1]}"]


def without_folders(content: Any) -> Any:
    """A summary.json without the folders its cases lie in: upstream names one that it has deleted."""
    if isinstance(content, dict) and "metric_per_case" in content:
        for case in content["metric_per_case"]:
            for key in ("reference_file", "prediction_file"):
                case[key] = Path(case[key]).name
    return content


def image_differences(first: Path, second: Path) -> list[str]:
    """Voxels, their type and the geometry of two images."""
    one, two = (sitk.ReadImage(str(file)) for file in (first, second))
    found = []
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelIDTypeAsString"):
        values = [getattr(image, what)() for image in (one, two)]
        if values[0] != values[1]:
            found.append(f"{what} {values[0]} and {values[1]}")
    if not found:
        different = int(np.count_nonzero(sitk.GetArrayFromImage(one) != sitk.GetArrayFromImage(two)))
        found += [f"{different} voxels differ"] * bool(different)
    return found


def same(first: Any, second: Any) -> bool:
    """Equal values, NaN like NaN, lists like tuples."""
    return not value_differences(first, second)


def value_differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Where two nested values differ; keys that only the second has are told as such."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{where}/{key} is missing in ours" for key in first.keys() - second.keys()]
        found += [f"{where}/{key} is added by ours" for key in second.keys() - first.keys()]
        for key in first.keys() & second.keys():
            found += value_differences(first[key], second[key], f"{where}/{key}")
        return found
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        return [
            text
            for i, (a, b) in enumerate(zip(first, second, strict=True))
            for text in value_differences(a, b, f"{where}/{i}")
        ]
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return [] if np.array_equal(first, second) else [f"{where}: arrays differ"]
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return []
    return [] if first == second else [f"{where}: {first!r} and {second!r}"]
