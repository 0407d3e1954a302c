"""Checkpoints: the only place that reads and writes weights. Nothing in a file is ever executed.

Keys, as upstream writes them: network_weights, optimizer_state, grad_scaler_state, logging, _best_ema, current_epoch
(the next one to run), init_args, trainer_name, inference_allowed_mirroring_axes. Ours stand beside them; neither side
minds the other's.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.models.checkpoint_integrity import damage
from nnunet_lite.utilities.files import PathLike, atomic_path

Checkpoint = dict[str, Any]

_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3  # names in an error message
_reading = threading.Lock()  # what torch allows a file to name is one list for all threads
_OWN_FILE = "delete it or restore it from a copy"
NAMED_FILE = "give a .pth file such as fold_0/checkpoint_final.pth"  # advice about a file that a user named


def load_checkpoint(
    path: PathLike, map_location: str | torch.device = "cpu", *, advice: str = _OWN_FILE, mapped: bool = False
) -> Checkpoint:
    """Read a checkpoint of ours or of upstream; weights lose the prefixes of DDP and torch.compile.

    Args:
        path: of the file.
        map_location: where the tensors go.
        advice: what to do if it turns out to be no checkpoint.
        mapped: tensors (on the CPU) stay in the file until they are used, the optimizer's for ever.

    Raises:
        CheckpointError: no such file, no checkpoint, truncated, or it holds objects that no checkpoint needs.
    """
    content = read_checkpoint(path, map_location, advice=advice, mapped=mapped)
    if not isinstance(content.get("network_weights"), Mapping):
        raise CheckpointError(f"{path} can be read but is no nnU-Net checkpoint: it has no 'network_weights'")
    for name, tensor in content["network_weights"].items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path} can be read but is no nnU-Net checkpoint: its weight {name} is no tensor")
    return {**content, "network_weights": strip_prefixes(content["network_weights"])}


def read_checkpoint(
    path: PathLike, map_location: str | torch.device = "cpu", *, advice: str = _OWN_FILE, mapped: bool = False
) -> Checkpoint:
    """Read a dictionary that torch saved, whatever its keys; tensors and plain values only. As `load_checkpoint`.

    Raises:
        CheckpointError: no such file, truncated, no dictionary, or it holds objects that no checkpoint needs.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; {_inside(path)}")
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}{_siblings(path)}")
    found = damage(path)
    if found is not None:
        raise CheckpointError(f"{path} ({path.stat().st_size} bytes) is damaged ({found}); {advice}")
    try:
        with _reading, _numpy_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on old pickle protocols; what matters ends in an error
            # files from before torch 1.6 are no zip archives, which cannot be mapped
            mmap = True if mapped and zipfile.is_zipfile(path) else None
            content = torch.load(os.fspath(path), map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(_refusal(path, error, advice)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} can be read but is no checkpoint: it holds a {type(content).__name__}")
    return content


def save_checkpoint(checkpoint: Checkpoint, path: PathLike) -> None:
    """Write a checkpoint; the file of that name stays as it is until the new one is safely on disk.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
    _flush_folder(path.parent)


def strip_prefixes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights under the names of the bare network."""
    return {_bare_name(name): tensor for name, tensor in weights.items()}


def copy_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights in memory of their own; what several names share is copied once and shared again."""
    copies: dict[Any, Any] = {}
    for tensor in weights.values():
        if _place(tensor) not in copies:
            copies[_place(tensor)] = tensor.clone()
    return {name: copies[_place(tensor)] for name, tensor in weights.items()}


def _place(tensor: Any) -> Any:
    return tensor.data_ptr() or id(tensor), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _bare_name(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name.replace("._orig_mod.", ".")


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel and torch.compile."""
    while True:
        inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        inner = getattr(inner, "_orig_mod", inner)
        if inner is network:
            return network
        network = inner


def load_weights(network: nn.Module, weights: Mapping[str, Any], source: str = "the checkpoint") -> None:
    """Load weights strictly, by name.

    A network may hold one tensor under several names; a file that keeps each tensor once is as good as the full list.
    One with a `load_state_dict` of its own, as around another network, is given the weights as they are.

    Raises:
        CheckpointError: names or shapes do not fit; names the first of each and what to look at.
    """
    network = unwrap(network)
    if type(network).load_state_dict is not nn.Module.load_state_dict:
        network.load_state_dict(strip_prefixes(weights))
        return
    own = network.state_dict(keep_vars=True)
    given = {**_aliases(own, weights), **strip_prefixes(weights)}
    missing = [name for name in own if name not in given]
    foreign = [name for name in given if name not in own]
    different = [
        f"{name} ({tuple(given[name].shape)} in the file, {tuple(tensor.shape)} in the network)"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for names, what in ((missing, "missing"), (foreign, "unknown"), (different, "of another shape"))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"The weights of {source} do not fit the network ({'; '.join(problems)}); "
            "plans, configuration, channels and labels must be those of the training"
        )
    network.load_state_dict(given)


def not_finite(weights: Mapping[str, Any]) -> list[str]:
    """Names of tensors that hold NaN or infinity, which a training that diverged leaves."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    return [name for name, value in tensors.items() if value.is_floating_point() and not _finite(value)]


def _finite(values: torch.Tensor) -> bool:
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())  # a sum is fast, and may overflow


def _aliases(own: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights for every name whose tensor is also known under a name that is in the file."""
    stripped = strip_prefixes(weights)
    by_tensor = {id(tensor): stripped[name] for name, tensor in own.items() if name in stripped}
    return {name: by_tensor[id(tensor)] for name, tensor in own.items() if id(tensor) in by_tensor}


def _numpy_allowed() -> AbstractContextManager[Any]:
    """Allow the numpy scalars and arrays that upstream's curves consist of, under the names of numpy 1 and 2."""
    safe_globals: Any = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:  # torch before 2.5: files of ours still load, they hold plain numbers
        return contextlib.nullcontext()
    scalar: Any = np.float32(0).__reduce__()[0]
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    allowed: list[Any] = [np.dtype, np.ndarray, *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdSU"}]
    for package in ("numpy.core", "numpy._core"):
        allowed += [(scalar, f"{package}.multiarray.scalar"), (reconstruct, f"{package}.multiarray._reconstruct")]
    context: AbstractContextManager[Any] = safe_globals(allowed)
    return context


def _refusal(path: Path, error: Exception, advice: str) -> str:
    forbidden = re.search(r"(?:Unsupported global: GLOBAL|GLOBAL|Unsupported class) ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and forbidden:
        return (
            f"{path} asks for {forbidden.group(1)}, which no checkpoint needs and which could run code: it was not "
            "loaded; get the file from a source you trust, or train anew"
        )
    with path.open("rb") as file:
        if re.match(rb"\s*<(!doctype html|html|\?xml)", file.read(64), re.IGNORECASE):
            return f"{path} is a web page, not a checkpoint; download the file itself, not the page that links to it"
    size = path.stat().st_size
    return f"{path} ({size} bytes) is no checkpoint, or a damaged one; {advice}"


def _inside(folder: Path) -> str:
    names = sorted(file.name for file in folder.glob("*.pth"))
    return f"it has {', '.join(names)}: name one" if names else NAMED_FILE


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    names = sorted(file.name for file in path.parent.glob("*.pth"))
    return f"; in that folder there are: {', '.join(names)}" if names else "; that folder has no checkpoints"


def _flush_folder(folder: Path) -> None:
    """Make the new name durable too; file systems that cannot do so are passed over."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
