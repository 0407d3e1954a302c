"""Weights of a self-supervised pretraining for a network with other channels, patches or stages (spec 02, 9.4).

The encoder and its stem are taken over, decoder and heads start afresh. What differs on purpose is adapted: the first
convolution where the number of channels is another, position embeddings where the grid of tokens is another, and in
`dynamic` mode the extent of kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nnunet_lite.exceptions import CheckpointError, PlansError
from nnunet_lite.models.checkpoint import load_weights, strip_prefixes, unwrap

Weights = Mapping[str, torch.Tensor]

_SHOWN = 3  # names in an error message
_COPIED, _MISFIT, _MISSING = "copied", "does not fit", "not in the checkpoint"


class PretrainInfo(NamedTuple):
    """The block `pretrain_info` of plans: where the weights are and which parts of a network they belong to."""

    checkpoint_path: str
    checkpoint_name: str
    key_to_encoder: str
    key_to_stem: str
    key_to_lpe: str | None  # learnable position embedding
    num_input_channels: int
    patch_size: Sequence[int] | None
    citations: Any

    @staticmethod
    def from_plans(plans: Mapping[str, Any]) -> PretrainInfo:
        """Raises PlansError if the plans name no pretraining, or say too little about it."""
        info = plans.get("pretrain_info")
        if not isinstance(info, Mapping):
            raise PlansError(
                f"The plans {plans.get('plans_name')} name no pretrained checkpoint (they have no 'pretrain_info'); "
                "make plans with nnUNetv2_preprocess_like_nnssl or nnUNetv2_plan_like_dynamic, or give --from_scratch"
            )
        texts = {key: info.get(key) for key in ("checkpoint_path", "key_to_encoder", "key_to_stem")}
        wrong = [key for key, value in texts.items() if not isinstance(value, str) or not value]
        if not isinstance(info.get("pt_num_in_channels"), int):
            wrong.append("pt_num_in_channels")
        if wrong:
            raise PlansError(
                f"The 'pretrain_info' of plans {plans.get('plans_name')} has no usable {', '.join(wrong)}; make the "
                "plans again from the checkpoint"
            )
        return PretrainInfo(
            texts["checkpoint_path"] or "",
            str(info.get("checkpoint_name")),
            texts["key_to_encoder"] or "",
            texts["key_to_stem"] or "",
            info.get("key_to_lpe"),
            info["pt_num_in_channels"],
            info.get("pt_used_patchsize"),
            info.get("citations"),
        )


class Row(NamedTuple):
    """What became of one tensor of the network's encoder or stem."""

    name: str
    what: str  # "copied", or how it was adapted, or why it was left


def load_encoder(
    network: nn.Module,
    weights: Weights,
    info: PretrainInfo,
    num_input_channels: int,
    patch_size: Sequence[int],
    dynamic: bool = False,
) -> list[str]:
    """Load encoder and stem of a pretraining into a network, in place; a table of what was done, line by line.

    Args:
        network: U-Net or Primus; what belongs to its encoder is said by its own attributes `key_to_encoder` and
            `key_to_stem`, else by those of the pretraining.
        weights: `network_weights` of the checkpoint.
        num_input_channels: of the network.
        patch_size: edges of the patches it is trained with, in voxels.
        dynamic: leave what does not fit as it is, and shorten kernels by averaging; else everything must fit.

    Raises:
        CheckpointError: encoder or stem do not fit, or (dynamic) nothing does.
    """
    network = unwrap(network)
    given = strip_prefixes(weights)
    rows: list[Row] = []
    used: set[str] = set()
    embedding = getattr(network, "key_to_lpe", info.key_to_lpe)
    fit = _Fit(info, embedding, num_input_channels, patch_size, dynamic)
    for own_key, key in _parts(network, info):
        part = network.get_submodule(own_key)
        own = part.state_dict()
        theirs = {name[len(key) + 1 :]: tensor for name, tensor in given.items() if name.startswith(f"{key}.")}
        if not theirs and not dynamic:
            raise CheckpointError(f"{info.checkpoint_path} has no weights for {key}; {_inventory(given)}")
        used |= {f"{key}.{name}" for name in theirs if name in own}
        taken, part_rows = fit.part(own_key, own, _with_aliases(own, theirs))
        rows += part_rows
        if dynamic:
            part.load_state_dict(taken, strict=False)
        else:
            load_weights(part, taken, f"{info.checkpoint_path} ({key})")
    if not any(row.what == _COPIED for row in rows):
        raise CheckpointError(
            f"{info.checkpoint_path}: not one tensor of its encoder {info.key_to_encoder} fits the planned network; "
            f"choose plans with the network of the pretraining; {_inventory(given)}"
        )
    known = _each_once(given, sorted(used))
    unused = _each_once(given, [*known, *given])[len(known) :]
    return _table(network.state_dict(), unused, info, rows)


def _parts(network: nn.Module, info: PretrainInfo) -> list[tuple[str, str]]:
    """(name in the network, name in the checkpoint) of encoder and stem; one of them if it holds the other."""
    pairs = []
    for what in ("encoder", "stem"):
        theirs = getattr(info, f"key_to_{what}")
        own = getattr(network, f"key_to_{what}", theirs)
        try:
            network.get_submodule(own)
        except AttributeError:
            raise CheckpointError(
                f"The planned network has no part {own}, into which the {what} of {info.checkpoint_path} could be "
                "loaded; choose plans with the network of the pretraining"
            ) from None
        pairs.append((own, theirs))
    encoder, stem = pairs
    return [encoder] if f"{stem[0]}.".startswith(f"{encoder[0]}.") else pairs


def _with_aliases(own: Weights, theirs: Weights) -> dict[str, torch.Tensor]:
    """Weights under every name of their tensor: networks hold some under several, files need not."""
    by_tensor = {tensor.data_ptr(): theirs[name] for name, tensor in own.items() if name in theirs}
    known = {name: by_tensor[tensor.data_ptr()] for name, tensor in own.items() if tensor.data_ptr() in by_tensor}
    return {**known, **theirs}


class _Fit:
    """Makes tensors of a pretraining fit those of a network."""

    def __init__(
        self, info: PretrainInfo, embedding: str | None, channels: int, patch_size: Sequence[int], dynamic: bool
    ) -> None:
        self.info = info
        self.embedding = embedding  # name in the network
        self.channels = channels
        self.patch_size = patch_size
        self.dynamic = dynamic

    def part(self, key: str, own: Weights, theirs: Weights) -> tuple[dict[str, torch.Tensor], list[Row]]:
        """Tensors to load into a part of the network, and what was done with each; other names pass as they are."""
        taken: dict[str, torch.Tensor] = {} if self.dynamic else dict(theirs)
        rows = []
        for name, tensor in own.items():
            if name not in theirs:
                rows.append(Row(f"{key}.{name}", _MISSING))
                continue
            adapted, what = self._tensor(f"{key}.{name}", theirs[name], tensor)
            if adapted is not None:
                taken[name] = adapted
            rows.append(Row(f"{key}.{name}", what))
        return taken, rows

    def _tensor(self, name: str, given: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor | None, str]:
        if given.shape == own.shape:
            return given, _COPIED
        change = f"{tuple(given.shape)} to {tuple(own.shape)}"
        if self.embedding == name and given.ndim == own.ndim == 3:
            resized = resize_position_embedding(given, own.shape[1], self.info.patch_size, self.patch_size)
            return resized, f"{change}: position embedding resized"
        notes = []
        if self._is_input_projection(given, own):
            given = spread_over_channels(given, own.shape[1])
            notes.append("channels spread")
        if self.dynamic and given.shape != own.shape and given.ndim == own.ndim > 2:
            given = shorten_kernel(given, own.shape[2:])
            notes.append("kernel averaged")
        if given.shape == own.shape:
            return given, f"{change}: {', '.join(notes)}"
        return None, f"{change}: {_MISFIT}"

    def _is_input_projection(self, given: torch.Tensor, own: torch.Tensor) -> bool:
        """A convolution of the image itself: in residual stems the skip connection is one, too."""
        channels = (self.info.num_input_channels, self.channels)
        return given.ndim == own.ndim > 2 and (given.shape[1], own.shape[1]) == channels and channels[0] != channels[1]


def spread_over_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """A convolution (out, in, ...) for another number of input channels, all treated alike.

    Its response to the same image in every channel stays what it was: the weights of all channels are added, repeated,
    and divided by the new number. For one channel that is upstream's repeat and divide.
    """
    return weight.sum(1, keepdim=True).repeat(1, channels, *[1] * (weight.ndim - 2)) / channels


def shorten_kernel(weight: torch.Tensor, kernel: Sequence[int]) -> torch.Tensor:
    """A convolution (out, in, ...) averaged over the axes along which the new kernel has one voxel."""
    axes = [axis for axis, size in enumerate(kernel, 2) if size == 1 and weight.shape[axis] > 1]
    return weight.mean(axes, keepdim=True) if axes else weight


def resize_position_embedding(
    embedding: torch.Tensor, tokens: int, old_patch: Sequence[int] | None, new_patch: Sequence[int]
) -> torch.Tensor:
    """Position embeddings (1, tokens, features) of one patch size for another, trilinearly.

    The grids follow from the patches: tokens are cubes, and there are as many as the embedding has entries.

    Raises:
        CheckpointError: the numbers do not go together.
    """
    old = token_grid(embedding.shape[1], old_patch)
    new = token_grid(tokens, new_patch)
    if old is None or new is None:
        raise CheckpointError(
            f"The position embedding for {embedding.shape[1]} tokens of patches {old_patch} cannot be resized to "
            f"{tokens} tokens of patches {list(new_patch)}: these are no grids of cubic tokens; choose another "
            "patch_size in the plans"
        )
    grid = embedding.float().transpose(1, 2).reshape(1, embedding.shape[2], *old)
    resized = functional.interpolate(grid, new, mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(embedding.dtype)


def token_grid(tokens: int, patch: Sequence[int] | None) -> list[int] | None:
    """Tokens per axis of a patch that is cut into this many cubes; None if it cannot be."""
    if patch is None or len(patch) != 3 or tokens < 1:
        return None
    edge = round((torch.tensor(patch).prod().item() / tokens) ** (1 / 3))
    if edge < 1 or any(size % edge for size in patch):
        return None
    grid = [size // edge for size in patch]
    return grid if torch.tensor(grid).prod().item() == tokens else None


def citation_lines(citations: Any) -> list[str]:
    """Whatever a checkpoint holds as citations, as lines of text."""
    if citations is None or citations == "":
        return []
    if isinstance(citations, Mapping):
        return [line for value in citations.values() for line in citation_lines(value)]
    if isinstance(citations, (list, tuple)):
        return [line for value in citations for line in citation_lines(value)]
    return str(citations).splitlines()


def _table(own: Weights, unused: Sequence[str], info: PretrainInfo, rows: Sequence[Row]) -> list[str]:
    """Copied parts with their number of tensors, adapted and left tensors one by one, what else there is in sums."""
    taken = _each_once(own, [row.name for row in rows])
    rows = [row for row in rows if row.name in set(taken)]
    lines = [f"Weights of {info.checkpoint_path} (pretraining {info.checkpoint_name}):"]
    copied = _count(row.name for row in rows if row.what == _COPIED)
    lines += [f"  copied   {part}: {number} tensors" for part, number in copied.items()]
    for row in rows:
        if row.what != _COPIED:
            left = row.what.endswith((_MISFIT, _MISSING))
            lines.append(f"  {'left    ' if left else 'adapted '} {row.name}: {row.what}")
    lines += [f"  skipped  {part} of the checkpoint: {number} tensors" for part, number in _count(unused).items()]
    fresh = _count(_each_once(own, [*taken, *own])[len(taken) :])
    return lines + [f"  fresh    {part} of the network: {number} tensors" for part, number in fresh.items()]


def _each_once(tensors: Weights, names: Iterable[str]) -> list[str]:
    """Names in order, without further names of a tensor that was named before: U-Nets hold most under several."""
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(tensors[name].data_ptr(), name)
    return list(first.values())


def _count(names: Iterable[str]) -> dict[str, int]:
    """Number of tensors per part: the first two components of their names."""
    parts: dict[str, int] = {}
    for name in names:
        part = ".".join(name.split(".")[:2])
        parts[part] = parts.get(part, 0) + 1
    return parts


def _inventory(given: Weights) -> str:
    parts = list(_count(given))
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"it has: {', '.join(parts[:_SHOWN]) or 'no weights'}{more}"
