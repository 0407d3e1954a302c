"""For comparisons of predictions: two outputs of the same cases, voxel by voxel, and the geometry of their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

TOLERANCE = 1e-3  # of probabilities
RIM = 8  # voxels: what counts as the edge of an image


@dataclass
class Difference:
    """What two predictions of some cases differ in, added up."""

    voxels: int = 0
    different: int = 0
    labels: set[int] = field(default_factory=set)
    probability: float = 0.0  # largest difference
    over_tolerance: int = 0  # probabilities that differ more than TOLERANCE
    over_tolerance_inside: int = 0  # of these, farther than RIM from the edge
    margin: float = 0.0  # largest margin (of logits) of the first prediction at a voxel that differs
    different_inside: int = 0
    geometry: list[str] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Share of equal voxels."""
        return 1 - self.different / max(1, self.voxels)

    def add(self, first: Path, second: Path, ending: str) -> None:
        """Compare a case, given as two paths without file ending."""
        files = [Path(f"{path}{ending}") for path in (first, second)]
        labels = [read_labels(file) for file in files]
        self.geometry += geometry_differences(*files)
        different = labels[0] != labels[1]
        inside = np.zeros(different.shape, bool)
        inside[tuple(slice(RIM, -RIM) if edge > 3 * RIM else slice(None) for edge in inside.shape)] = True
        self.voxels += different.size
        self.different += int(different.sum())
        self.different_inside += int((different & inside).sum())
        self.labels.update(np.unique(labels[0]).tolist())
        one, two = (np.load(f"{path}.npz")["probabilities"] for path in (first, second))
        if one.dtype != two.dtype or one.shape != two.shape:
            self.geometry.append(f"probabilities {one.dtype} {one.shape} and {two.dtype} {two.shape}")
            return
        distance = np.abs(one - two).max(0).reshape(different.shape)
        self.probability = max(self.probability, float(distance.max()))
        over = distance > TOLERANCE
        self.over_tolerance += int(over.sum())
        self.over_tolerance_inside += int((over & inside).sum())
        changed = decisions(one) != decisions(two)  # may be in another order of the axes than the files
        if changed.any():
            self.margin = max(self.margin, float(margins(one)[changed].max()))


def read_labels(file: Path) -> NDArray[Any]:
    """Labels as stored."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def exclusive(probabilities: NDArray[np.float32]) -> bool:
    """Whether they are those of labels (they add up to 1) and not of regions."""
    return bool(np.allclose(probabilities.sum(0), 1, atol=1e-3))


def decisions(probabilities: NDArray[np.float32]) -> NDArray[Any]:
    """What a voxel is: its likeliest label, or a number that stands for its set of regions."""
    if exclusive(probabilities):
        return probabilities.argmax(0)
    powers = 2 ** np.arange(len(probabilities)).reshape(-1, 1, 1, 1)
    return ((probabilities > 0.5) * powers).sum(0)


def margins(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far a voxel is from another decision, in logits: the logarithm of the ratio of the two best probabilities.

    For regions: the smallest distance of a logit from 0.
    """
    exact = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    if exclusive(probabilities):
        best = np.sort(exact, axis=0)[-2:]
        return np.asarray(np.log(best[1] / best[0]))
    return np.asarray(np.abs(np.log(exact / (1 - exact))).min(0))


def geometry_differences(first: Path, second: Path) -> list[str]:
    """What differs in the headers: type, size, spacing, origin, direction, and for NIfTI every field."""
    one, two = (sitk.ReadImage(str(file)) for file in (first, second))
    found = []
    for what in ("PixelIDTypeAsString", "Size", "Spacing", "Origin", "Direction", "NumberOfComponentsPerPixel"):
        values = [getattr(image, f"Get{what}")() for image in (one, two)]
        if values[0] != values[1]:
            found.append(f"{what} {values[0]} and {values[1]}")
    if first.name.endswith((".nii", ".nii.gz")):
        import nibabel  # optional: only for NIfTI

        headers = [nibabel.load(file).header for file in (first, second)]
        for what in ("get_best_affine", "get_data_dtype", "get_data_shape", "get_slope_inter"):
            values = [np.asarray(getattr(header, what)(), dtype=object) for header in headers]
            if not np.array_equal(*values):
                found.append(f"NIfTI {what} {values[0]} and {values[1]}")
    return found
