"""For comparisons of predictions: plans with a small network, derived label definitions, and cropped images."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk

Document = dict[str, Any]

STAGES, FEATURES = 4, (8, 16, 32, 32)
LONGEST_EDGE = {2: 48, 3: 40}  # of a patch, by its axes


def small_plans(plans: Mapping[str, Any]) -> Document:
    """Plans whose networks have four stages of few features, one convolution each, and small patches."""
    result = copy.deepcopy(dict(plans))
    for configuration in result["configurations"].values():
        if "architecture" not in configuration:
            continue
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["n_stages"] = stages = min(STAGES, arguments["n_stages"])
        arguments["features_per_stage"] = list(FEATURES[:stages])
        for name in ("kernel_sizes", "strides"):
            arguments[name] = arguments[name][:stages]
        for name, number in (
            ("n_conv_per_stage", stages),
            ("n_blocks_per_stage", stages),
            ("n_conv_per_stage_decoder", stages - 1),
        ):
            if name in arguments:
                arguments[name] = [1] * number
        patch = configuration["patch_size"]
        factors = [math.prod(step) for step in zip(*arguments["strides"], strict=True)]
        longest = LONGEST_EDGE[len(patch)]
        configuration["patch_size"] = [
            max(factor, min(edge, longest) // factor * factor) for edge, factor in zip(patch, factors, strict=True)
        ]
        configuration["batch_size"] = 2
    return result


def with_reader(plans: Document, reader: str) -> None:
    """Let another reader and writer handle the images."""
    plans["image_reader_writer"] = reader


def with_transposition(plans: Document, forward: Sequence[int]) -> None:
    """Another order of the axes in network space."""
    plans["transpose_forward"] = list(forward)
    plans["transpose_backward"] = [list(forward).index(axis) for axis in range(3)]


def with_spacing(plans: Document, factor: float) -> None:
    """Coarser or finer networks' space, so that logits are resampled."""
    for configuration in plans["configurations"].values():
        if "spacing" in configuration:
            configuration["spacing"] = [value * factor for value in configuration["spacing"]]


def with_torch_resampling(plans: Document) -> None:
    """The resampling functions of upstream's nnUNetPlannerResEncL_torchres."""
    for configuration in plans["configurations"].values():
        for what, is_seg in (("data", False), ("seg", True), ("probabilities", False)):
            configuration[f"resampling_fn_{what}"] = "resample_torch_fornnunet"
            configuration[f"resampling_fn_{what}_kwargs"] = {
                "is_seg": is_seg,
                "force_separate_z": False,
                "memefficient_seg_resampling": False,
            }


def with_no_resampling(plans: Document) -> None:
    """The resampling functions of upstream's nnUNetPlanner_noresampling."""
    for configuration in plans["configurations"].values():
        for what in ("data", "seg", "probabilities"):
            configuration[f"resampling_fn_{what}"] = "no_resampling_hack"
            configuration[f"resampling_fn_{what}_kwargs"] = {}


def with_regions(dataset: Document) -> None:
    """Overlapping regions of a dataset with consecutive labels: all of them, then each alone but the first."""
    labels = sorted(value for value in dataset["labels"].values() if value)
    regions: dict[str, Any] = {"background": 0, "whole": labels}
    regions.update({f"part {label}": label for label in labels[1:]})
    dataset["labels"] = regions
    dataset["regions_class_order"] = labels


def with_ignore_label(dataset: Document) -> None:
    """A last label that training would ignore."""
    values = [
        value for entry in dataset["labels"].values() for value in (entry if isinstance(entry, list) else [entry])
    ]
    dataset["labels"]["ignore"] = max(values) + 1


def crop_image(source: Path, target: Path, longest: int, permute: bool = False) -> None:
    """The middle of an image, at most so many voxels per axis; its place in space is kept.

    Args:
        permute: also reorder its axes, so that its direction is no longer near the identity.
    """
    image = sitk.ReadImage(str(source))
    size = [min(edge, longest) for edge in image.GetSize()]
    start = [(edge - part) // 2 for edge, part in zip(image.GetSize(), size, strict=True)]
    image = sitk.RegionOfInterest(image, size, start)
    if permute:
        image = sitk.PermuteAxes(image, [2, 0, 1])
    sitk.WriteImage(image, str(target))
