"""The configurations of plans files as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.reporting.markup import Markup, element, joined, number, table

_DASH = "\N{EN DASH}"
_BY = " \N{MULTIPLICATION SIGN} "
_MOST_CONFIGURATIONS = 12
_LONGEST = 200  # characters of a cell


def plans_section(plans: Mapping[str, PlansManager]) -> Markup:
    """A table per plans file, a column per configuration."""
    return joined(*[_plans(name, manager) for name, manager in plans.items()])


def _plans(name: str, manager: PlansManager) -> Markup:
    names = manager.available_configurations[:_MOST_CONFIGURATIONS]
    configurations = [manager.get_configuration(configuration) for configuration in names]
    rows = [[label, *[_value(read, one) for one in configurations]] for label, read in _ROWS]
    rest = len(manager.available_configurations) - len(names)
    return joined(
        table(["", *names], rows, f"Plans {name}"),
        element("p", f"{rest} further configurations are not shown.", class_="note") if rest else None,
        element(
            "p",
            f"Planned by {manager.plans.get('experiment_planner_used', 'an unknown planner')}; images are read by "
            f"{manager.plans.get('image_reader_writer', 'an unknown reader')}; axes in the order "
            f"{manager.plans.get('transpose_forward', 'of the files')}. Sizes are given in that order.",
            class_="note",
        ),
    )


def _value(read: Callable[[ConfigurationManager], Any], configuration: ConfigurationManager) -> str:
    """One cell; plans of one's own may lack anything."""
    try:
        text = str(read(configuration))
    except (nnUNetError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return _DASH
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _by(values: Any) -> str:
    return _BY.join(_DASH if value is None else number(float(value)) for value in values)


def _run_lengths(values: Any) -> str:
    """2, 2, 2, 1 as "3 times 2, 1"."""
    entries = [_by(value) if isinstance(value, (list, tuple)) else str(value) for value in values]
    runs = [(entry, len(list(same))) for entry, same in groupby(entries)]
    return ", ".join(entry if count == 1 else f"{count} times {entry}" for entry, count in runs)


def _architecture(key: str) -> Callable[[ConfigurationManager], Any]:
    return lambda one: one.network_arch_init_kwargs[key]


def _blocks(one: ConfigurationManager) -> str:
    kwargs = one.network_arch_init_kwargs
    return _run_lengths(kwargs.get("n_blocks_per_stage") or kwargs["n_conv_per_stage"])


_ROWS: tuple[tuple[str, Callable[[ConfigurationManager], Any]], ...] = (
    ("patch size (voxels)", lambda one: _by(one.patch_size)),
    ("batch size", lambda one: one.batch_size),
    ("spacing (mm)", lambda one: _by(one.spacing)),
    ("median image size (voxels)", lambda one: _by(one.median_image_size_in_voxels)),
    ("normalization", lambda one: _run_lengths(one.normalization_schemes)),
    ("network", lambda one: one.network_arch_class_name.rsplit(".", 1)[-1]),
    ("stages", _architecture("n_stages")),
    ("features per stage", lambda one: ", ".join(map(str, one.network_arch_init_kwargs["features_per_stage"]))),
    ("blocks or convolutions per stage", _blocks),
    ("strides", lambda one: _run_lengths(one.network_arch_init_kwargs["strides"])),
    ("kernel sizes", lambda one: _run_lengths(one.network_arch_init_kwargs["kernel_sizes"])),
    ("Dice over the batch", lambda one: "yes" if one.batch_dice else "no"),
    ("previous stage", lambda one: one.previous_stage_name or _DASH),
    ("preprocessed data", lambda one: one.data_identifier),
)
