"""A small but honest 3D dataset: an organ with a core, among structures of the same brightness that are neither.

Each case is drawn in millimetres and sampled on an anisotropic grid. What tells the organ from its surroundings is
its size and shape, what tells the core is that it lies in the organ: thresholds of any kind fail (tests/demo).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.files import atomic_path, save_json

DATASET_NAME = "Dataset999_Demo"
LABELS = {"background": 0, "organ": 1, "core": 2}
FIELD_OF_VIEW = (72.0, 58.0, 58.0)  # mm along z, y, x; varies a little between cases

_BODY, _ORGAN, _CORE = 100.0, 170.0, 215.0  # brightness of tissues
_Volume = NDArray[np.floating[Any]]


class PhantomCase(NamedTuple):
    """One drawn case: image and segmentation (z, y, x) and their voxel size in mm (z, y, x)."""

    image: NDArray[np.float32]
    segmentation: NDArray[np.uint8]
    spacing: tuple[float, float, float]


class _Space:
    """The voxels of one case as points in mm, centred, and the case's own random numbers."""

    def __init__(self, generator: np.random.Generator, scale: float) -> None:
        self.generator = generator
        plane = float(generator.uniform(1.1, 1.3)) / scale
        self.spacing = (float(generator.choice([2.75, 3.0, 3.25])) / scale, plane, plane)
        extent = np.array(FIELD_OF_VIEW) * generator.uniform(0.93, 1.07, 3)
        self.shape = tuple(int(round(length / step)) for length, step in zip(extent, self.spacing, strict=True))
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(self.shape, self.spacing, strict=True)]
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        self.half = np.array([(n - 1) / 2 * step for n, step in zip(self.shape, self.spacing, strict=True)])

    def smooth_noise(self, length: float) -> _Volume:
        """Zero-mean, unit-variance noise that changes over `length` mm."""
        from scipy.ndimage import gaussian_filter

        noise = gaussian_filter(self.generator.standard_normal(self.shape), [length / step for step in self.spacing])
        standardized: _Volume = (noise - noise.mean()) / noise.std()
        return standardized

    def ellipsoid(self, centre: _Volume, radii: _Volume, rotation: _Volume, bend: float = 0.0) -> _Volume:
        """Distance from the centre in radii: below 1 inside. `bend` curves it like a bean."""
        local = (self.points - centre) @ rotation
        local[..., 2] += bend * (local[..., 1] ** 2 / radii[1] - radii[1] / 4)
        distance: _Volume = np.linalg.norm(local / radii, axis=-1)
        return distance

    def tube(self, through: _Volume, direction: _Volume, radius: float) -> NDArray[np.bool_]:
        """Voxels within `radius` mm of a line."""
        offset = self.points - through
        along = offset @ direction
        return np.asarray(np.linalg.norm(offset - along[..., None] * direction, axis=-1) < radius)


def make_case(seed: int, scale: float = 1.0) -> PhantomCase:
    """Draw one case.

    Args:
        seed: everything random follows from it.
        scale: voxels per length; 1 gives about 24 x 48 x 48 voxels of 3 x 1.2 x 1.2 mm.
    """
    space = _Space(np.random.default_rng(seed), scale)
    body = space.ellipsoid(np.zeros(3), space.half * (1.15, 0.95, 0.95), np.eye(3)) + 0.03 * space.smooth_noise(8) < 1
    organ, core, outside = _organ_and_core(space)
    image = np.where(body, _BODY, 8.0)
    _draw_distractors(space, image, body & outside)
    image[organ] = _ORGAN
    image[core] = _CORE
    segmentation = np.where(core, LABELS["core"], np.where(organ, LABELS["organ"], 0)).astype(np.uint8)
    return PhantomCase(_acquire(space, image, body), segmentation, space.spacing)


def _organ_and_core(space: _Space) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """A bent ellipsoid with an uneven surface, near the middle in any pose, a smaller one inside it, and what lies
    clear of both: what touches the organ and looks like it would be part of it to anybody.
    """
    generator = space.generator
    rotation = _rotation(generator.uniform(-1, 1, 3) * (0.8, 0.35, 0.35))
    radii = np.array([17.0, 15.0, 10.5]) * generator.uniform(0.85, 1.15, 3)
    centre = generator.uniform(-1, 1, 3) * (8.0, 5.0, 5.0)
    distance = space.ellipsoid(centre, radii, rotation, bend=generator.uniform(0.1, 0.5))
    distance += 0.06 * space.smooth_noise(5)
    shift = rotation @ (radii * generator.uniform(-0.3, 0.3, 3))
    core_radii = radii * generator.uniform(0.45, 0.6, 3)
    core = space.ellipsoid(centre + shift, core_radii, rotation) + 0.08 * space.smooth_noise(4) < 1
    return distance < 1, core & (distance < 0.9), distance > 1.12


def _draw_distractors(space: _Space, image: _Volume, where: NDArray[np.bool_]) -> None:
    """Vessels and nodules as bright as the organ or its core, and a bright rim of the body, all outside the organ."""
    from scipy.ndimage import distance_transform_edt

    generator = space.generator
    depth = distance_transform_edt(image > _BODY / 2, sampling=space.spacing)
    image[(depth > 0) & (depth < 3.0)] = _CORE
    for brightness, number, low, high in ((_ORGAN, 7, 4.0, 9.0), (_CORE, 7, 3.0, 6.0)):
        for _ in range(number):
            centre = generator.uniform(-0.8, 0.8, 3) * space.half
            radii = generator.uniform(low, high, 3)
            image[where & (space.ellipsoid(centre, radii, np.eye(3)) < 1)] = brightness
    for brightness in (_ORGAN, _CORE):
        direction = generator.standard_normal(3)
        through = generator.uniform(-0.6, 0.6, 3) * space.half
        direction /= np.linalg.norm(direction)
        image[where & space.tube(through, direction, generator.uniform(2.0, 3.0))] = brightness


def _acquire(space: _Space, image: _Volume, body: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What a scanner makes of it: texture, blur, uneven sensitivity, noise and a gain of its own."""
    from scipy.ndimage import gaussian_filter

    image = image + body * (6 * space.smooth_noise(1.5))
    image = gaussian_filter(image, [0.4, 0.6, 0.6])
    image *= np.exp(0.18 * space.smooth_noise(25))
    noise = 10 * space.generator.standard_normal((2, *space.shape))
    magnitude: _Volume = np.hypot(image + noise[0], noise[1])
    return np.asarray(space.generator.uniform(0.8, 1.25) * magnitude, np.float32)


def _rotation(angles: Sequence[float] | _Volume) -> _Volume:
    """Rotation matrix from angles (radians) about z, y and x."""
    matrix: _Volume = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def make_dataset(raw_folder: Path, training_cases: int = 12, test_cases: int = 3, scale: float = 1.0) -> Path:
    """Write the dataset in nnU-Net's layout, unless it is there; returns its folder.

    Training cases lie in imagesTr and labelsTr, test cases in imagesTs, their references in labelsTs.
    """
    folder = raw_folder / DATASET_NAME
    if (folder / "dataset.json").exists():
        return folder
    for number in range(training_cases + test_cases):
        part = "Tr" if number < training_cases else "Ts"
        case = make_case(1000 + number, scale)
        _write(case.image, case.spacing, folder / f"images{part}" / f"demo_{number:03d}_0000.nii.gz")
        _write(case.segmentation, case.spacing, folder / f"labels{part}" / f"demo_{number:03d}.nii.gz")
    save_json(
        {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": training_cases, "file_ending": ".nii.gz"},
        folder / "dataset.json",
        sort_keys=False,
    )
    return folder


def _write(volume: NDArray[Any], spacing: Sequence[float], file: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing([float(step) for step in reversed(spacing)])
    with atomic_path(file) as temporary:
        SimpleITK.WriteImage(image, str(temporary), useCompression=True)
