"""Start a training from the weights of another one, and say of each tensor what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.models.checkpoint import NAMED_FILE, load_checkpoint, unwrap
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger

_HEADS = ".seg_layers."  # depend on the number of classes and start afresh
_SHOWN = 3  # names in an error message

LOADED, FRESH, MISSING, OTHER_SHAPE, UNUSED = "loaded", "fresh", "missing", "other shape", "not used"

Shape = tuple[int, ...]


class Weight(NamedTuple):
    """A tensor of the network; it may have several names: a decoder, for example, holds the encoder a second time."""

    names: list[str]
    shape: Shape

    @property
    def is_head(self) -> bool:
        """Whether it depends on the number of classes."""
        return _HEADS in self.names[0]


class Row(NamedTuple):
    """What became of one tensor: its first name, and its shape in the network and in the file, None where it is not."""

    name: str
    status: str
    own: Shape | None
    given: Shape | None


def load_pretrained_weights(
    network: nn.Module, fname: PathLike, verbose: bool = False, log: Callable[[str], None] | None = None
) -> list[Row]:
    """Copy all weights of a checkpoint except the segmentation heads; further weights in the file are ignored.

    Args:
        network: also inside DDP or torch.compile; the weights go to the device it is on.
        fname: checkpoint of ours or of upstream.
        verbose: list the copied weights on the console.
        log: takes the table of all tensors, line by line.

    Raises:
        CheckpointError: no checkpoint, or a weight that the network needs is missing in it or has another shape;
            nothing was loaded then.
    """
    network = unwrap(network)
    given = load_checkpoint(fname, advice=NAMED_FILE)["network_weights"]
    weights = _weights(network)
    table = compare(weights, given)
    _require_fit(table, fname, given)
    own = network.state_dict()
    for weight in weights:
        source = next((name for name in weight.names if name in given), None)
        if source is not None and not weight.is_head:
            own.update(dict.fromkeys(weight.names, given[source]))
    network.load_state_dict(own)
    counts = {status: sum(row.status == status for row in table) for status in (LOADED, FRESH, UNUSED)}
    logger.info(
        "Starting from the weights of %s: %d tensors loaded, %d heads start afresh, %d of the file not used",
        *(fname, *counts.values()),
    )
    if log is not None:
        for line in table_lines(table, fname):
            log(line)
    if verbose:
        logger.info("Copied: %s", ", ".join(row.name for row in table if row.status == LOADED))
    return table


def compare(weights: Sequence[Weight], given: Mapping[str, Any]) -> list[Row]:
    """A row per tensor of the network (under its first name), then one per weight of the file that nobody asks for."""
    table = []
    for weight in weights:
        found = next((given[name] for name in weight.names if name in given), None)
        theirs = tuple(found.shape) if isinstance(found, torch.Tensor) else None
        if weight.is_head:
            status = FRESH
        elif theirs is None:
            status = MISSING
        else:
            status = LOADED if theirs == weight.shape else OTHER_SHAPE
        table.append(Row(weight.names[0], status, weight.shape, theirs))
    known = {name for weight in weights for name in weight.names}
    for name, tensor in given.items():
        if name not in known:
            table.append(Row(name, UNUSED, None, tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None))
    return table


def table_lines(table: Sequence[Row], fname: PathLike) -> list[str]:
    """The table as text."""
    width = max(len(row.name) for row in table)
    lines = [f"Weights of {fname} (network <- file):"]
    for name, status, own, given in table:
        shapes = f"{own or '-'} <- {given or '-'}" if own != given else str(own)
        lines.append(f"  {status:11} {name:{width}}  {shapes}")
    return lines


def _weights(network: nn.Module) -> list[Weight]:
    """The tensors of a network, each once."""
    found: dict[int, Weight] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), Weight([], tuple(tensor.shape))).names.append(name)
    return list(found.values())


def _require_fit(table: Sequence[Row], fname: PathLike, given: Mapping[str, Any]) -> None:
    missing = [row for row in table if row.status == MISSING]
    different = [row for row in table if row.status == OTHER_SHAPE]
    if not missing and not different:
        return
    needed = len(missing) + len(different) + sum(row.status == LOADED for row in table)
    if len(missing) == needed:
        examples = ", ".join(list(given)[:_SHOWN]) or "nothing"
        raise CheckpointError(
            f"{fname} has none of the {needed} weights of this network; it holds {examples} ...: another kind of "
            "network, which -pretrained_weights cannot start from"
        )
    channels = [row for row in different if _differs_in_inputs_only(row)]
    if len(channels) == len(different) and not missing:
        own, theirs = channels[0].own, channels[0].given
        raise CheckpointError(
            f"{fname} was trained with {theirs[1] if theirs else '?'} input channels, this network has "
            f"{own[1] if own else '?'} ({channels[0].name}: {theirs} in the file, {own} needed); train it on images "
            "with the same channels, or start without -pretrained_weights"
        )
    problems = [f"{len(missing)} are missing ({_listed([row.name for row in missing])})"] if missing else []
    if different:
        shapes = [f"{row.name}: {row.given} in the file, {row.own} needed" for row in different]
        problems.append(f"{len(different)} have another shape ({_listed(shapes)})")
    raise CheckpointError(
        f"{fname} does not fit this network: of its {needed} weights without heads {' and '.join(problems)}; "
        "plan both datasets with the same architecture (nnUNetv2_move_plans_between_datasets)"
    )


def _differs_in_inputs_only(row: Row) -> bool:
    own, given = row.own, row.given
    return own is not None and given is not None and (own[:1], own[2:]) == (given[:1], given[2:])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
