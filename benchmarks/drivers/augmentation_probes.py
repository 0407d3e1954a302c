"""Run by either interpreter: what the transforms do to images made to show it; arrays of results as .npz.

usage: augmentation_probes.py PACKAGE SAMPLES SEED OUTPUT_NPZ

The pipelines come from the trainers' `get_training_transforms`; their rows are called one by one. A name that ends in
`#` holds categories, one that ends in `=` numbers that must agree one by one, any other a continuous quantity.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from math import atan2, log, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from image_moments import describe
from torch import Tensor

TRAINERS = {
    "nnunetv2": {
        "default": "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer",
        "DA5": "nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5:nnUNetTrainerDA5",
    },
    "nnunet_lite": {
        "default": "nnunet_lite.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer",
        "DA5": "nnunet_lite.training.nnUNetTrainer.variants.data_augmentation:nnUNetTrainerDA5",
    },
}
CHANNELS = 3
Found = dict[str, Any]


class Geometry(NamedTuple):
    """A patch, the enlarged one it is cut from, the angle range in degrees."""

    name: str
    patch: tuple[int, ...]
    initial: tuple[int, ...]
    degrees: float
    dummy_2d: bool = False


GEOMETRIES = (
    Geometry("3d", (16, 20, 18), (28, 32, 30), 30),
    Geometry("3d dummy 2d", (6, 24, 22), (6, 40, 40), 180, True),
    Geometry("2d", (24, 28), (40, 44), 180),
)


def rows_of(package: str, trainer: str, geometry: Geometry) -> list[tuple[str, Any]]:
    """Names and transforms of a pipeline; what belongs to the spatial transform is one row."""
    module, name = TRAINERS[package][trainer].split(":")
    angle = geometry.degrees / 180 * pi
    axes = tuple(range(len(geometry.patch)))
    pipeline = getattr(importlib.import_module(module), name).get_training_transforms(
        geometry.patch, (-angle, angle), [[1.0] * len(axes)], axes, geometry.dummy_2d,
        use_mask_for_norm=[True] + [False] * (CHANNELS - 1), is_cascaded=True, foreground_labels=[1, 2, 3],
    )  # fmt: skip
    rows: list[tuple[str, Any]] = []
    spatial: list[Any] = []
    for transform in pipeline.transforms:
        name = type(getattr(transform, "transform", transform)).__name__
        if name.startswith(("Spatial", "Convert3DTo2D", "Convert2DTo3D")):
            spatial.append(transform)
        else:
            rows.append((name.removesuffix("Transform"), transform))
    return [("Spatial", Chain(spatial)), *rows]


class Chain:
    """Transforms one after the other."""

    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms

    def __call__(self, **sample: Any) -> Found:
        for transform in self.transforms:
            sample = transform(**sample)
        return sample


def call(transform: Any, image: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One sample through one row; the probe itself stays as it is."""
    if labels is None:
        labels = torch.zeros((1, *image.shape[1:]), dtype=torch.int16)
    result = transform(image=image.clone(), segmentation=labels.clone())
    return result["image"], result["segmentation"]


def ramps(size: tuple[int, ...]) -> Tensor:
    """One channel per axis with the coordinates from the centre."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def spatial_probe(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Matrices from the slopes of coordinate ramps at the centre; labels of shells around it."""
    first = int(geometry.dummy_2d)
    coordinates = ramps(geometry.initial)
    distance = coordinates[first:].square().sum(0).sqrt()
    labels = (torch.bucketize(distance, torch.tensor([3.0, 6.0, 9.0])) + 1).clamp(max=4).short()
    labels[coordinates[-1] > 6] = 5
    labels[coordinates[-2] > 8] = -1
    middle = [n // 2 for n in geometry.patch]
    kinds, angles, scales, shares = [], [], [], []
    for _ in range(samples):
        image, seg = call(transform, coordinates, labels[None])
        centre = image[(slice(None), *(slice(m - 1, m + 1) for m in middle))].double()
        axes = range(first, len(geometry.patch))
        matrix = np.array(
            [
                [float((centre[d].select(e, 1) - centre[d].select(e, 0)).mean()) for e in axes]
                for d in axes
            ]
        )  # fmt: skip
        norms = np.linalg.norm(matrix, axis=0)
        turned = matrix / norms
        rotated = np.abs(turned - np.eye(len(norms))).max() > 1e-4
        zoomed = np.abs(norms - 1).max() > 1e-5
        kinds.append(2 * rotated + zoomed)
        if rotated:
            angles.append(_angles(turned))
        if zoomed:
            scales.append(norms)
        if rotated or zoomed:
            shares.append([float((seg == label).float().mean()) for label in (-1, 1, 2, 3, 4, 5)])
    found: Found = {"rotated and zoomed#": np.array(kinds)}
    found |= {f"angle {axis}": column for axis, column in enumerate(np.array(angles).T)}
    found |= {f"angle {axis} is zero#": np.abs(column) < 1e-3 for axis, column in enumerate(np.array(angles).T)}
    found |= {f"factor {axis}": column for axis, column in enumerate(np.array(scales).T)}
    found["one factor#"] = np.ptp(np.array(scales), axis=1) < 1e-4
    found |= {
        f"share of label {name}": column
        for name, column in zip((-1, 1, 2, 3, 4, 5), np.array(shares).T, strict=True)
    }  # fmt: skip
    return found


def _angles(matrix: Any) -> tuple[float, ...]:
    """Of Rz Ry Rx, or of a plane."""
    if len(matrix) == 2:
        return (atan2(matrix[1, 0], matrix[0, 0]),)
    y = -np.arcsin(np.clip(matrix[2, 0], -1, 1))
    return atan2(matrix[2, 1], matrix[2, 2]), float(y), atan2(matrix[1, 0], matrix[0, 0])


def exact_spatial(transform: Any, geometry: Geometry, package: str) -> Found:
    """Images and labels for the same draws from numpy's legacy generator, whose order upstream's is."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((2, *geometry.initial), generator=generator)
    coarse = torch.rand((1, 1, *(n // 3 + 1 for n in geometry.initial)), generator=generator) * 8 - 1.5
    labels = torch.nn.functional.interpolate(coarse, geometry.initial, mode="nearest")[0].round().short()
    images, segmentations = [], []
    for seed in range(60):
        if package == "nnunetv2":
            np.random.seed(seed)
            found = call(transform, image, labels)
        else:
            found = transform.transforms[0](
                image=image.clone(), segmentation=labels.clone(), rng=np.random.RandomState(seed)
            )
            found = found["image"], found["segmentation"]
        images.append(found[0].numpy())
        segmentations.append(found[1].numpy().astype(np.int16))
    return {"image, same draws=": np.stack(images), "labels, same draws=": np.stack(segmentations)}


def rate(transform: Any, geometry: Geometry, samples: int) -> Found:
    """How often a row changes a sample, and which of its channels."""
    image = torch.rand((CHANNELS, *(8 for _ in geometry.patch)), generator=torch.Generator().manual_seed(1))
    changed = []
    for _ in range(samples):
        result = call(transform, image)[0]
        changed.append(sum(2**c * (not torch.equal(result[c], image[c])) for c in range(CHANNELS)))
    return {"applied#": np.array(changed) > 0, "channels changed#": np.array(changed)}


def per_channel(
    transform: Any, image: Tensor, samples: int, measure: Callable[[Tensor], tuple[float, ...]], *names: str
) -> Found:
    """Quantities of channel 0, and their differences from channel 1, of the samples where these were changed."""
    values, differences, changed = [], [], []
    for _ in range(samples):
        result = call(transform, image)[0]
        touched = [not torch.equal(result[c], image[c]) for c in range(CHANNELS)]
        changed.append(sum(2**c * one for c, one in enumerate(touched)))
        if touched[0]:
            values.append(measure(result[0]))
        if touched[0] and touched[1]:
            differences.append(np.subtract(values[-1], measure(result[1])))
    found: Found = {"channels changed, when applied#": np.array(changed)}
    for position, name in enumerate(names):
        found[name] = np.array(values)[:, position]
        found[f"{name}, difference between channels"] = np.array(differences)[:, position].round(5)
    return found


def noise(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Standard deviation, shared by channels, and correlation of their values."""
    image = torch.zeros((CHANNELS, *geometry.patch))
    deviations, correlations, moments = [], [], []
    for _ in range(samples):
        result = call(transform, image)[0].flatten(1).double()
        deviation = result.std(1)
        deviations.append(deviation[:2].tolist())
        standard = (result - result.mean(1, keepdim=True)) / deviation[:, None].clamp(min=1e-9)
        correlations.append(float((standard[0] * standard[1]).mean()))
        moments.append([float(standard[0].pow(k).mean()) for k in (3, 4)])
    sigmas = np.array(deviations)
    return {
        "sigma": sigmas[:, 0],
        "sigma, ratio of channels": sigmas[:, 1] / sigmas[:, 0],
        "correlation of channels": np.array(correlations),
        "skewness": np.array(moments)[:, 0],
        "kurtosis": np.array(moments)[:, 1],
    }


def blur(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Sigma and number of weights per axis from an impulse."""
    image = torch.zeros((CHANNELS, *(17 for _ in geometry.patch)))
    centre = (8,) * len(geometry.patch)
    image[(slice(None), *centre)] = 1

    def measure(channel: Tensor) -> tuple[float, ...]:
        sigmas, lengths = [], []
        for axis in range(channel.ndim):
            line = channel[tuple(slice(None) if d == axis else 8 for d in range(channel.ndim))]
            sigmas.append((-0.5 / log(float(line[9] / line[8]))) ** 0.5)
            lengths.append(float((line > 0).sum()))
        return (*sigmas, sigmas[0] - sigmas[1], *lengths[:1])

    names = [f"sigma {axis}" for axis in range(len(geometry.patch))]
    return per_channel(transform, image, samples, measure, *names, "sigma, difference of axes", "weights")


def brightness(transform: Any, geometry: Geometry, samples: int) -> Found:
    """The factor from a constant."""
    image = torch.ones((CHANNELS, *(4 for _ in geometry.patch)))
    return per_channel(transform, image, samples, lambda channel: (float(channel.mean()),), "factor")


def _line(geometry: Geometry, values: Tensor) -> Tensor:
    return values.view(-1, *[1] * (len(geometry.patch) - 1)).expand(-1, *[2] * (len(geometry.patch) - 1))


def contrast(transform: Any, geometry: Geometry, samples: int) -> Found:
    """The factor from the slope of a line about its mean, and the ends."""
    line = _line(geometry, torch.linspace(-1, 1, 101))
    image = torch.stack([line] * CHANNELS)

    def measure(channel: Tensor) -> tuple[float, ...]:
        values = channel.flatten(1)[:, 0]
        return float((values[60] - values[40]) / 0.4), float(values.max()), float(values.mean())

    return per_channel(transform, image, samples, measure, "factor", "maximum", "mean")


def low_resolution(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Size of the coarse grid per axis, from a sum of one random profile per axis."""
    generator = torch.Generator().manual_seed(3)
    size = (32,) * len(geometry.patch)
    profile = torch.randn(32, generator=generator)
    axes = [profile.view([-1 if d == axis else 1 for d in range(len(size))]) for axis in range(len(size))]
    image = torch.stack([sum(axes, torch.zeros(size))] * CHANNELS)
    candidates = []
    for coarse in range(4, 33):
        small = torch.nn.functional.interpolate(profile[None, None], coarse, mode="nearest-exact")
        back = torch.nn.functional.interpolate(small, 32, mode="linear")[0, 0]
        candidates.append(back - back.mean())
    table = torch.stack(candidates)

    def measure(channel: Tensor) -> tuple[float, ...]:
        sizes = []
        for axis in range(channel.ndim):
            line = channel.mean([d for d in range(channel.ndim) if d != axis])
            sizes.append(4.0 + int((table - (line - line.mean())).square().sum(1).argmin()))
        return (*sizes, sizes[-1] - sizes[-2], sizes[0] - sizes[1])

    names = [f"coarse size {axis}" for axis in range(len(size))]
    return per_channel(
        transform, image, samples, measure, *names, "coarse size, difference of last axes", "... of first axes"
    )


def gamma(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Exponent and inversion from a line; mean and deviation kept."""
    line = _line(geometry, torch.linspace(0, 1, 101) + 2)
    image = torch.stack([line] * CHANNELS)

    def measure(channel: Tensor) -> tuple[float, ...]:
        values = channel.flatten(1)[:, 0].double()
        share = (values - values.min()) / (values.max() - values.min())
        quarter, half = float(share[25]), float(share[50])
        plain, inverted = log(half) / log(0.5), log(1 - half) / log(0.5)
        is_inverted = abs(1 - 0.75**inverted - quarter) < abs(0.25**plain - quarter)
        kept = float(values.mean()), float(values.std())
        return (inverted if is_inverted else plain, float(is_inverted), round(kept[0], 3), round(kept[1], 3))

    return per_channel(transform, image, samples, measure, "exponent", "inverted", "mean", "deviation")


def mirror(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Which axes are flipped, in image and labels alike."""
    size = (2,) * len(geometry.patch)
    image = torch.arange(2.0 ** len(size)).view(1, *size)
    flips, alike = [], []
    for _ in range(samples):
        result, labels = call(transform, image, image.short())
        flips.append(int(result.flatten()[0]))
        alike.append(bool((result == labels).all()))
    return {"axes#": np.array(flips), "labels follow#": np.array(alike)}


def moments(transform: Any, geometry: Geometry, samples: int) -> Found:
    """What a row does to a structured image in general, where it does anything."""
    coordinates = ramps(geometry.patch)
    image = torch.stack([(coordinates.square().sum(0).sqrt() * (0.4 + 0.1 * c)).sin() + c for c in range(CHANNELS)])
    changed, values = [], []
    for _ in range(samples):
        result = call(transform, image)[0]
        changed.append(sum(2**c * (not torch.equal(result[c], image[c])) for c in range(CHANNELS)))
        if changed[-1] & 1:
            values.append(describe(result[0]))
    found: Found = {"applied#": np.array(changed) > 0, "channels changed#": np.array(changed)}
    return found | {name: np.array([one[name] for one in values]).round(5) for name in (values[0] if values else ())}


def moved_axes(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Where the corner voxels go when axes of equal length change places."""
    image = torch.zeros((1, *geometry.patch))
    corners = [
        tuple(edge - 1 if d == axis else 0 for d, edge in enumerate(geometry.patch)) for axis in range(image.ndim - 1)
    ]
    for number, corner in enumerate(corners, 1):
        image[(0, *corner)] = number
    outcomes = []
    for _ in range(samples):
        result = call(transform, image)[0][0]
        places = [int((result == number).flatten().nonzero()[0]) for number in range(1, len(corners) + 1)]
        outcomes.append(sum(place * 1000**i for i, place in enumerate(places)) % 2**52)
    return {"outcome#": np.array(outcomes)}


def one_hot_channels(size: tuple[int, ...]) -> Tensor:
    """An image channel and the one-hot channels of three labels; the first has three components."""
    labels = torch.zeros(size, dtype=torch.int64)
    half = tuple(n // 2 for n in size)
    labels[tuple(slice(h - 4, h + 3) for h in half)] = 1
    labels[tuple(slice(0, 3) for _ in size)] = 1
    labels[(slice(0, 2), *(slice(-4, None) for _ in size[1:]))] = 1
    labels[tuple(slice(h + 5, h + 9) for h in half)] = 2
    labels[tuple(slice(-2, None) for _ in size)] = 3
    return torch.stack([torch.ones(size), *((labels == label).float() for label in (1, 2, 3))])


def cascade(transform: Any, geometry: Geometry, samples: int) -> Found:
    """Voxels of each label after the previous stage's result was corrupted."""
    image = one_hot_channels(tuple(28 for _ in geometry.patch))
    sums, changed = [], []
    for _ in range(samples):
        result = call(transform, image)[0]
        sums.append(result.flatten(1).sum(1)[1:].tolist())
        changed.append(sum(2**c * (not torch.equal(result[c], image[c])) for c in range(4)))
    columns = np.array(sums).T
    found: Found = {"applied#": np.array(changed) > 0, "channels changed#": np.array(changed)}
    for label, column in enumerate(columns, 1):
        found[f"voxels of label {label}"] = column
        found[f"voxels of label {label}, value by value#"] = column
    return found


def fixed(transform: Any, geometry: Geometry) -> Found:
    """Rows without randomness."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn((CHANNELS, *geometry.patch), generator=generator)
    labels = torch.randint(-1, 4, (2, *geometry.patch), generator=generator).short()
    result = transform(image=image, segmentation=labels)
    levels = result["segmentation"] if isinstance(result["segmentation"], list) else [result["segmentation"]]
    return {"image=": result["image"].numpy(), "labels=": levels[0].numpy()}


DEFAULT: dict[str, Callable[[Any, Geometry, int], Found]] = {
    "GaussianNoise": noise,
    "GaussianBlur": blur,
    "MultiplicativeBrightness": brightness,
    "Contrast": contrast,
    "SimulateLowResolution": low_resolution,
    "Gamma": gamma,
}
WHOLE: dict[str, Callable[[Any, Geometry, int], Found]] = {
    "Mirror": mirror,
    "Rot90": moved_axes,
    "TransposeAxes": moved_axes,
    "ApplyRandomBinaryOperator": cascade,
    "RemoveRandomConnectedComponentFromOneHotEncoding": cascade,
}
FIXED = ("MaskImage", "RemoveLabel", "MoveSegAsOneHotToData", "DownsampleSegForDS")


def probe(package: str, trainer: str, geometry: Geometry, samples: int) -> Iterator[tuple[str, Found]]:
    """Results of every row of a pipeline."""
    heavy = trainer == "DA5"
    for position, (name, transform) in enumerate(rows_of(package, trainer, geometry)):
        inner = getattr(transform, "transform", transform)
        prefix = f"{trainer} {geometry.name}, {position} {name}"
        if name == "Spatial":
            yield prefix, spatial_probe(transform, geometry, samples)
            if not heavy:  # DA5 decides per axis in an order of its own
                yield prefix, exact_spatial(transform, geometry, package)
        elif name in FIXED:
            yield prefix, fixed(transform, geometry)
        elif name in WHOLE:
            yield prefix, WHOLE[name](transform, geometry, samples // 2 if name in SLOW else samples)
        elif name in DEFAULT:
            yield prefix, rate(transform, geometry, samples)
            yield prefix, DEFAULT[name](inner, geometry, samples)
        else:
            yield prefix, moments(transform, geometry, samples)


SLOW = ("ApplyRandomBinaryOperator",)


def main() -> None:
    """Probe everything and save."""
    package, samples, seed, output = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    np.random.seed(seed)
    torch.manual_seed(seed)
    arrays: Found = {}
    for trainer in TRAINERS[package]:
        for geometry in GEOMETRIES:
            for prefix, found in probe(package, trainer, geometry, samples):
                arrays |= {f"{prefix}: {name}": values for name, values in found.items()}
    np.savez(output, **{name.replace("/", "|"): np.asarray(values) for name, values in arrays.items()})


if __name__ == "__main__":
    main()
