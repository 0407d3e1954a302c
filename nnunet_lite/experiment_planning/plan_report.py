"""What was planned and why, as text of at most 100 columns: a page for a dry run, a few lines after each planning."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.planning_rules import ConfigurationNotes
from nnunet_lite.utilities.memory import format_size

WIDTH = 100
_LABEL = 17  # columns of the names on the left
_VOXEL_BYTES = 4  # of one channel; labels take _LABEL_BYTES
_LABEL_BYTES = 2


def summarize_plans(plans: Mapping[str, Any]) -> str:
    """One line per configuration: patch, batch, spacing, stages."""
    lines = []
    for name, configuration in plans["configurations"].items():
        if "patch_size" not in configuration:
            parts = [f"{key.replace('_', ' ')} {value}" for key, value in configuration.items()]
        else:
            parts = [
                f"patch {_by(configuration['patch_size'])}",
                f"batch {configuration['batch_size']}",
                f"spacing {_by(configuration['spacing'])} mm",
                f"{configuration['architecture']['arch_kwargs'].get('n_stages', '?')} stages",
            ]
        lines.append(_shortened(f"  {name:<20}{', '.join(parts)}"))
    return "\n".join(lines)


def describe_plans(planner: ExperimentPlanner, plans: Mapping[str, Any]) -> str:
    """Everything that was decided and why, for a person to read before anything is written.

    Decisions of a planner of one's own are shown with its name instead of a reason.
    """
    sections = [
        _shortened(
            f"{plans['dataset_name']}: plans {plans['plans_name']} by {type(planner).__name__}, "
            f"for {planner.UNet_vram_target_GB:g} GB of GPU memory"
        ),
        _dataset(planner, plans),
        _normalization(planner, plans),
        _configurations(planner, plans),
        _lowres(planner, plans),
    ]
    return "\n\n".join(section for section in sections if section)


def _dataset(planner: ExperimentPlanner, plans: Mapping[str, Any]) -> str:
    fingerprint, declared = planner.fingerprint, planner.declared
    shapes, spacings = np.vstack(fingerprint.shapes_after_crop), np.vstack(fingerprint.spacings)
    spacing = planner.determine_fullres_target_spacing()
    forward = plans["transpose_forward"]
    if not _is_own(planner, "determine_transpose"):
        axes = f"{forward}: decided by {type(planner).__name__}"
    elif planner.suppress_transpose:
        axes = f"{forward}: transposing is suppressed"
    elif forward == [0, 1, 2]:
        axes = f"{forward}: kept, the first axis is the coarsest (or all are alike)"
    else:
        axes = f"{forward}: axis {forward[0]}, the coarsest, comes first; everything below is in this order"
    flat = "" if "3d_fullres" in plans["configurations"] else " (the first axis has no meaning, the images are 2D)"
    labels = [name for name in declared.labels if name not in ("background", "ignore")]
    kind = "regions" if any(isinstance(v, list) and len(v) > 1 for v in declared.labels.values()) else "labels"
    ignore = ", an ignore label" if "ignore" in declared.labels else ""
    counted = f"{len(shapes)}" if len(shapes) == declared.num_training else f"{len(shapes)} in the fingerprint, "
    if len(shapes) != declared.num_training:
        counted += f"numTraining says {declared.num_training}: the latter counts for batch sizes"
    return _lines(
        ("training cases", counted),
        ("channels, labels", f"{declared.num_input_channels} and {len(labels)} {kind}{ignore}"),
        ("reader", f"{plans['image_reader_writer']}, {_reader_reason(planner)}"),
        ("image size", f"{_range(shapes)} voxels, without empty borders"),
        ("image spacing", f"{_range(spacings)} mm"),
        ("target spacing", f"{_by(spacing)} mm: {_spacing_reason(planner)}{flat}"),
        ("axis order", axes),
    )


def _range(values: NDArray[Any]) -> str:
    """Median, least and largest per axis, of (cases, 3)."""
    low, high = values.min(0), values.max(0)
    if _by(low) == _by(high):
        return f"all {_by(low)}"
    return f"median {_by(np.median(values, 0))}, from {_by(low)} to {_by(high)}"


def _reader_reason(planner: ExperimentPlanner) -> str:
    if planner.declared.reader_writer_name == planner.reader_writer_name:
        return "named in dataset.json"
    if not _is_own(planner, "determine_reader_writer"):
        return f"decided by {type(planner).__name__}"
    ending = planner.declared.file_ending
    return f"by the ending {ending} and a look at an image" if planner.example_image else f"by the ending {ending} only"


def _spacing_reason(planner: ExperimentPlanner) -> str:
    own = _is_own(planner, "determine_fullres_target_spacing") and _is_own(planner, "choose_target_spacing")
    return planner.choose_target_spacing().reason if own else f"decided by {type(planner).__name__}"


def _normalization(planner: ExperimentPlanner, plans: Mapping[str, Any]) -> str:
    configuration = next(iter(plans["configurations"].values()))
    schemes = zip(configuration["normalization_schemes"], configuration["use_mask_for_norm"], strict=True)
    rows: Counter[tuple[str, str]] = Counter()
    numbers: dict[tuple[str, str], str] = {}
    for number, (name, (scheme, masked)) in enumerate(zip(planner.declared.channel_names, schemes, strict=True)):
        row = (name, f"{scheme}{', inside the nonzero region only' if masked else ''}")
        rows[row] += 1
        numbers.setdefault(row, str(number))
    entries = [
        (f"channel {numbers[row]}", f"{row[0]}: {row[1]}" + (f" (and {count - 1} more)" if count > 1 else ""))
        for row, count in rows.items()
    ]
    kept = planner.fingerprint.median_relative_size_after_cropping
    mask = f"cropping to nonzero keeps {kept:.0%} of the median image; " + (
        "below 75 %: z-scores look at the nonzero region only" if kept < 0.75 else "masks are used below 75 %"
    )
    if not _is_own(planner, "determine_normalization_scheme_and_whether_mask_is_used_for_norm"):
        mask = f"decided by {type(planner).__name__}"
    function = configuration["resampling_fn_data"]
    options = [f"{k}={v}" for k, v in configuration["resampling_fn_data_kwargs"].items() if k != "is_seg"]
    resampling = f"{function}({', '.join(options)})"
    return _lines(*entries, ("masks", mask), ("resampling", resampling), ("preprocessor", planner.preprocessor_name))


def _configurations(planner: ExperimentPlanner, plans: Mapping[str, Any]) -> str:
    planned = {name: c for name, c in plans["configurations"].items() if "patch_size" in c}
    columns = [["", *_ROWS]]
    for name, configuration in planned.items():
        notes = planner.notes.get(tuple(float(value) for value in configuration["spacing"]))
        columns.append([name, *_column(planner, plans, configuration, notes)])
    width = (WIDTH - _LABEL - 3) // max(1, len(planned))
    widths = [_LABEL + 3, *[min(width, max(map(len, column)) + 3) for column in columns[1:]]]
    rows = ["".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in zip(*columns, strict=True)]
    inheriting = [f"{name}: {_pairs(c)}" for name, c in plans["configurations"].items() if name not in planned]
    return "\n".join(_shortened(row.rstrip()) for row in [*rows, *inheriting])


_ROWS = (
    "spacing, mm",
    "median image",
    "patch tried first",
    "patch",
    "  limited by",
    "  shortened",
    "stages",
    "pooling per axis",
    "features",
    "batch size",
    "  limited by",
    "  memory allows",
    "  dataset allows",
    "GPU memory, about",
    "batch Dice",
    "preprocessed",
    "  folder",
)


def _column(
    planner: ExperimentPlanner,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    notes: ConfigurationNotes | None,
) -> list[str]:
    """Cells of one configuration in the order of `_ROWS`."""
    kwargs = configuration["architecture"]["arch_kwargs"]
    strides, features = kwargs.get("strides", []), kwargs.get("features_per_stage", [])
    pools = [round(math.log2(math.prod(column))) for column in zip(*strides, strict=True)]
    batch = notes.batch_size if notes else None
    return [
        _by(configuration["spacing"]),
        _by(configuration["median_image_size_in_voxels"]),
        _by(notes.first_patch) if notes else "?",
        _by(configuration["patch_size"]),
        notes.patch_reason if notes else f"{type(planner).__name__}",
        f"{notes.shrunk} times" if notes else "?",
        str(kwargs.get("n_stages", "?")),
        " ".join(map(str, pools)),
        f"{features[0]} ... {features[-1]}" if features else "?",
        str(configuration["batch_size"]),
        batch.reason if batch else f"{type(planner).__name__}",
        str(batch.by_memory) if batch else "?",
        f"{batch.by_dataset} ({planner.max_dataset_covered:.0%})" if batch else "?",
        f"{notes.memory_gb:.1f} GB" if notes else "?",
        "yes" if configuration.get("batch_dice") else "no",
        f"{format_size(preprocessed_bytes(planner, plans, configuration))} at most",
        configuration["data_identifier"],
    ]


def preprocessed_bytes(planner: ExperimentPlanner, plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> int:
    """Bytes of all cases as they are preprocessed for a configuration, before compression."""
    shapes = planner.resampled_shapes(configuration["spacing"], plans["transpose_forward"])
    voxels = int(shapes.prod(1).sum() / len(shapes) * planner.declared.num_training)
    return voxels * (_VOXEL_BYTES * planner.declared.num_input_channels + _LABEL_BYTES)


def _lowres(planner: ExperimentPlanner, plans: Mapping[str, Any]) -> str:
    """Why there is, or is not, a 3d_lowres with its cascade."""
    configurations = plans["configurations"]
    fullres = configurations.get("3d_fullres")
    if fullres is None:
        return _lines(("3d", "none: the images have a single slice"))
    covered = math.prod(fullres["patch_size"]) / math.prod(fullres["median_image_size_in_voxels"])
    limit = f"{planner.lowres_creation_threshold:.0%}"
    seen = f"a patch of 3d_fullres shows {min(covered, 1):.0%} of the median image"
    if "3d_lowres" in configurations:
        text = f"made, with its cascade: {seen}, less than {limit}"
    elif covered >= planner.lowres_creation_threshold:
        text = f"none: {seen}, at least {limit}"
    else:
        text = f"none: {seen}, less than {limit}, but 3d_lowres would have more than half as many voxels"
    return _lines(("3d_lowres", text))


def _is_own(planner: ExperimentPlanner, method: str) -> bool:
    """Whether a decision is the package's, not one of a planner of somebody else's."""
    defined: str = getattr(type(planner), method).__module__
    return defined.startswith(ExperimentPlanner.__module__.rpartition(".")[0])


def _lines(*entries: tuple[str, str]) -> str:
    indent = " " * (_LABEL + 3)
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<{_LABEL}}   ", subsequent_indent=indent)
        for name, text in entries
    )


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _pairs(configuration: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in configuration.items())


def _by(values: Sequence[float] | Any) -> str:
    """1 x 0.767 x 0.767: at most four significant decimals, none where the number is whole."""
    return " x ".join(f"{float(value):.4g}" if float(value) < 1000 else f"{float(value):.0f}" for value in values)
