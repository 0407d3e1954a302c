"""Make a CT-like phantom with 100 labels, 512 x 512 x 600 voxels of 0.7 x 0.7 x 1 mm by default: DatasetXXX_CTPhantom.

Every structure is a union of ellipsoids; long ones (ribs, vessels, muscles) are chains of them along a curve.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Structure = tuple[
    str, int, list[tuple[Sequence[float], Sequence[float]]]
]  # name, HU, (centre, radii) in parts of a body

ORGANS = {  # z (0 at the feet end), y (0 in front), x; radii alike; HU
    "liver": ((0.52, 0.45, 0.34), (0.09, 0.16, 0.15), 110),
    "spleen": ((0.54, 0.62, 0.72), (0.05, 0.07, 0.05), 120),
    "stomach": ((0.53, 0.38, 0.62), (0.05, 0.09, 0.08), 30),
    "pancreas": ((0.48, 0.45, 0.52), (0.02, 0.03, 0.12), 90),
    "gallbladder": ((0.47, 0.38, 0.36), (0.03, 0.03, 0.03), 10),
    "kidney_left": ((0.43, 0.62, 0.66), (0.05, 0.05, 0.04), 180),
    "kidney_right": ((0.42, 0.62, 0.34), (0.05, 0.05, 0.04), 180),
    "adrenal_left": ((0.49, 0.58, 0.62), (0.012, 0.015, 0.012), 60),
    "adrenal_right": ((0.48, 0.58, 0.38), (0.012, 0.015, 0.012), 60),
    "duodenum": ((0.44, 0.42, 0.44), (0.04, 0.03, 0.04), 40),
    "bladder": ((0.12, 0.36, 0.50), (0.04, 0.09, 0.10), 5),
    "prostate": ((0.07, 0.42, 0.50), (0.02, 0.04, 0.04), 50),
    "thyroid": ((0.95, 0.42, 0.50), (0.015, 0.03, 0.06), 150),
    "heart_myocardium": ((0.67, 0.40, 0.56), (0.06, 0.12, 0.11), 110),
    "atrium_left": ((0.70, 0.46, 0.54), (0.025, 0.05, 0.05), 220),
    "atrium_right": ((0.68, 0.38, 0.46), (0.03, 0.05, 0.04), 220),
    "ventricle_left": ((0.66, 0.40, 0.60), (0.03, 0.06, 0.05), 230),
    "ventricle_right": ((0.64, 0.34, 0.53), (0.03, 0.05, 0.06), 220),
    "lung_upper_left": ((0.80, 0.42, 0.70), (0.11, 0.19, 0.12), -850),
    "lung_lower_left": ((0.69, 0.58, 0.70), (0.11, 0.15, 0.12), -830),
    "lung_upper_right": ((0.82, 0.42, 0.30), (0.10, 0.19, 0.12), -850),
    "lung_middle_right": ((0.72, 0.34, 0.30), (0.05, 0.10, 0.11), -840),
    "lung_lower_right": ((0.68, 0.58, 0.30), (0.11, 0.15, 0.12), -830),
    "sternum": ((0.78, 0.20, 0.50), (0.10, 0.015, 0.025), 350),
    "sacrum": ((0.20, 0.72, 0.50), (0.06, 0.04, 0.08), 400),
    "brainstem": ((0.99, 0.55, 0.50), (0.02, 0.04, 0.04), 35),
}
TUBES = {  # points of a curve, radius, HU
    "aorta": ([(0.25, 0.60, 0.51), (0.6, 0.60, 0.52), (0.8, 0.55, 0.53), (0.78, 0.42, 0.50)], 0.022, 280),
    "vena_cava_inferior": ([(0.25, 0.58, 0.45), (0.62, 0.52, 0.44)], 0.02, 200),
    "vena_cava_superior": ([(0.70, 0.42, 0.44), (0.86, 0.42, 0.44)], 0.015, 220),
    "portal_vein": ([(0.50, 0.46, 0.40), (0.47, 0.47, 0.50), (0.52, 0.55, 0.66)], 0.011, 210),
    "oesophagus": ([(0.58, 0.52, 0.54), (0.80, 0.58, 0.50), (0.96, 0.56, 0.50)], 0.014, 30),
    "trachea": ([(0.80, 0.48, 0.50), (0.98, 0.46, 0.50)], 0.018, -950),
    "colon": (
        [(0.2, 0.4, 0.26), (0.42, 0.4, 0.26), (0.45, 0.3, 0.5), (0.42, 0.42, 0.76), (0.2, 0.5, 0.7)],
        0.035,
        -300,
    ),
    "small_bowel": ([(0.2 + 0.02 * i, 0.36, 0.40 if i % 2 else 0.62) for i in range(11)], 0.022, 20),
    "spinal_cord": ([(0.3, 0.74, 0.5), (0.98, 0.68, 0.5)], 0.012, 40),
    "pulmonary_artery": ([(0.72, 0.42, 0.50), (0.75, 0.46, 0.40), (0.74, 0.5, 0.32)], 0.014, 240),
}
PAIRS = {  # right-hand curve, radius, HU; mirrored
    "hip": ([(0.24, 0.58, 0.28), (0.14, 0.6, 0.34), (0.06, 0.5, 0.4)], 0.035, 500),
    "femur": ([(0.0, 0.5, 0.24), (0.10, 0.52, 0.26)], 0.04, 600),
    "scapula": ([(0.76, 0.80, 0.24), (0.88, 0.74, 0.16)], 0.014, 450),
    "humerus": ([(0.80, 0.52, 0.05), (0.90, 0.52, 0.08)], 0.03, 500),
    "clavicle": ([(0.89, 0.28, 0.46), (0.92, 0.42, 0.14)], 0.011, 450),
    "iliac_artery": ([(0.25, 0.60, 0.49), (0.12, 0.46, 0.34)], 0.011, 260),
    "iliac_vein": ([(0.25, 0.60, 0.46), (0.12, 0.50, 0.32)], 0.012, 190),
    "gluteus": ([(0.05, 0.78, 0.32), (0.2, 0.76, 0.26)], 0.055, 55),
    "iliopsoas": ([(0.12, 0.5, 0.32), (0.42, 0.64, 0.44)], 0.028, 55),
    "autochthonous_back": ([(0.2, 0.80, 0.44), (0.85, 0.80, 0.43)], 0.03, 55),
    "subclavian_artery": ([(0.86, 0.46, 0.46), (0.92, 0.46, 0.2)], 0.009, 260),
    "carotid": ([(0.88, 0.46, 0.44), (1.0, 0.44, 0.42)], 0.008, 260),
    "portion_of_arm_muscle": ([(0.78, 0.46, 0.04), (0.94, 0.46, 0.07)], 0.022, 55),
}


def chain(points: Sequence[Sequence[float]], radius: float) -> list[tuple[Sequence[float], Sequence[float]]]:
    """Balls along a polyline, close enough to each other to look like a tube."""
    balls = []
    for first, second in zip(points, points[1:], strict=False):
        start, end = np.array(first), np.array(second)
        steps = max(2, int(np.linalg.norm(end - start) / (0.5 * radius)))
        balls += [(tuple(start + t * (end - start)), (0.6 * radius, radius, radius)) for t in np.linspace(0, 1, steps)]
    return balls


def structures() -> Iterator[Structure]:
    """All hundred, in the order of painting: later ones lie over earlier ones."""
    for name, (centre, radii, value) in ORGANS.items():
        yield name, value, [(centre, radii)]
    for name, (points, radius, value) in TUBES.items():
        yield name, value, chain(points, radius)
    for name, (points, radius, value) in PAIRS.items():
        yield f"{name}_right", value, chain(points, radius)
        yield f"{name}_left", value, chain([(z, y, 1 - x) for z, y, x in points], radius)
    for number in range(24):
        body = ((0.27 + 0.03 * number, 0.68, 0.5), (0.012, 0.045, 0.05))
        yield f"vertebra_{number:02d}", 320, [body, ((body[0][0], 0.80, 0.5), (0.008, 0.05, 0.012))]
    for number in range(7):
        angles = np.linspace(0.15, 0.85, 24) * np.pi
        for side, sign in (("right", -1), ("left", 1)):
            z = 0.60 + 0.045 * number
            points = [
                (z + 0.08 * np.cos(a) * -0.5, 0.50 - 0.30 * np.cos(a), 0.5 + sign * 0.36 * np.sin(a)) for a in angles
            ]
            yield f"rib_{number:02d}_{side}", 380, chain(points, 0.011)


def paint(
    image: np.ndarray, labels: np.ndarray, label: int, value: int, centre: Sequence[float], radii: Sequence[float]
) -> None:
    """Paint one ellipsoid, given in parts of the volume's edges."""
    shape = np.array(labels.shape)
    middle, radius = np.array(centre) * shape, np.maximum(np.array(radii) * shape, 1.5)
    low = np.clip(np.floor(middle - radius), 0, shape).astype(int)
    high = np.clip(np.ceil(middle + radius) + 1, 0, shape).astype(int)
    if (high <= low).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = (((np.arange(a, b) - m) / r) ** 2 for a, b, m, r in zip(low, high, middle, radius, strict=True))
    inside = np.add.outer(np.add.outer(*(next(axes), next(axes))), next(axes)) < 1
    labels[box][inside] = label
    image[box][inside] = value


def make_case(shape: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (z, y, x) int16 in Hounsfield units and labels uint8."""
    rng = np.random.default_rng(seed)
    image, labels = np.full(tuple(shape), -1000, np.int16), np.zeros(tuple(shape), np.uint8)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    for z, plane in enumerate(image):
        wide = 0.86 + 0.06 * np.sin(6 * z / shape[0])
        radius = (x / wide) ** 2 + ((y - 0.08) / 0.74) ** 2
        plane[radius < 1] = -100
        plane[radius < 0.88] = 40
    for label, (_, value, parts) in enumerate(structures(), 1):
        shift = rng.normal(0, 0.003, 3)
        for centre, radii in parts:
            paint(image, labels, label, value, np.array(centre) + shift, radii)
    noise = rng.normal(0, 15, (2 * shape[1], 2 * shape[2])).astype(np.int16)
    for plane in image:
        a, b = rng.integers(0, shape[1]), rng.integers(0, shape[2])
        plane += noise[a : a + shape[1], b : b + shape[2]]
    return np.clip(image, -1024, 3071, out=image), labels


def write(array: np.ndarray, file: Path, spacing: Sequence[float]) -> None:
    """Write (z, y, x) compressed; spacing in the same order."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in reversed(spacing)])
    sitk.WriteImage(image, str(file), True, 1)


def main() -> None:
    """Make the dataset asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path, help="nnUNet_raw")
    parser.add_argument("--dataset-id", type=int, default=901)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512], help="z y x (default: 600 512 512)")
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=[1.0, 0.7, 0.7], help="mm, z y x (default: 1 0.7 0.7)"
    )
    args = parser.parse_args()
    folder = args.raw / f"Dataset{args.dataset_id:03d}_CTPhantom"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = [name for name, _, _ in structures()]
    document = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: label for label, name in enumerate(names, 1)}},
        "numTraining": args.cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(document, indent=4))
    for case in range(args.cases):
        image, labels = make_case(args.shape, case)
        write(image, folder / "imagesTr" / f"phantom_{case:02d}_0000.nii.gz", args.spacing)
        write(labels, folder / "labelsTr" / f"phantom_{case:02d}.nii.gz", args.spacing)
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(names) + 1))
        print(f"{folder.name}: case {case}, {len(present) - 1} of {len(names)} labels")


if __name__ == "__main__":
    main()
