"""The mean of several files of probabilities, a channel at a time, and whether they are of one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.utilities.files import PathLike, load_pickle
from nnunet_lite.utilities.npz_channels import NpzChannels, npz_channels

KEY = "probabilities"
_ROUNDING = 1e-3  # by which a probability may lie outside 0 to 1
_AGAIN = "predict that case again with --save_probabilities"


def shape_of(file: PathLike) -> tuple[int, ...]:
    """(heads, d0, d1, d2) of a file of probabilities. Raises DatasetError if it cannot be read."""
    with ExitStack() as stack:
        return _opened(file, stack).shape


def mean_channels(files: Sequence[PathLike]) -> Iterator[NDArray[np.float32]]:
    """The mean over files, channel by channel, in float32; summed in the order of the files, as upstream does.

    Raises:
        DatasetError: a file cannot be read, shapes differ, or a value is no probability.
    """
    with ExitStack() as stack:
        members = [_opened(file, stack) for file in files]
        for file, member in zip(files, members, strict=True):
            if member.shape != members[0].shape:
                raise DatasetError(
                    f"{file} has shape {member.shape}, {files[0]} has {members[0].shape}: they are not predictions of "
                    "the same image and labels"
                )
        for _ in range(members[0].shape[0]):
            yield _mean_of_next(files, members)


def _mean_of_next(files: Sequence[PathLike], members: Sequence[NpzChannels]) -> NDArray[np.float32]:
    total = _next_channel(files[0], members[0]).astype(np.float32, copy=False)
    for file, member in zip(files[1:], members[1:], strict=True):
        np.add(total, _next_channel(file, member), total)
    total /= len(files)
    if total.size and not (total.min() >= -_ROUNDING and total.max() <= 1 + _ROUNDING):  # false for NaN, too
        raise DatasetError(f"{' or '.join(map(str, files))} holds values that are no probability (0 to 1); {_AGAIN}")
    return total


def properties_of(files: Sequence[PathLike]) -> dict[str, Any]:
    """The geometry of a case: content of the `.pkl` beside the first file of probabilities.

    Raises:
        DatasetError: there is none, it holds no geometry, or another file's case has another spacing.
        StorageError: it is damaged.
    """
    pickle = Path(files[0]).with_suffix(".pkl")
    if not pickle.is_file():
        raise DatasetError(f"There is no {pickle}, which holds the geometry of that case; {_AGAIN}")
    properties = _geometry(pickle)
    for other in (Path(file).with_suffix(".pkl") for file in files[1:]):
        expected, given = properties.get("spacing"), _geometry(other).get("spacing") if other.is_file() else None
        if expected is not None and given is not None and not _close(expected, given):
            raise DatasetError(
                f"{other} says spacing {list(given)}, {pickle} says {list(expected)}: they are not predictions of the "
                "same image"
            )
    return properties


def _geometry(pickle: Path) -> dict[str, Any]:
    properties = load_pickle(pickle)
    if not isinstance(properties, dict):
        raise DatasetError(f"{pickle} holds {type(properties).__name__}, expected the geometry of a case; {_AGAIN}")
    return properties


def _close(expected: Any, given: Any) -> bool:
    try:
        return bool(np.allclose(expected, given, rtol=1e-3))
    except (TypeError, ValueError):  # no numbers, or not as many
        return False


def _opened(file: PathLike, stack: ExitStack) -> NpzChannels:
    try:
        return stack.enter_context(npz_channels(file, KEY))
    except FileNotFoundError as error:
        raise DatasetError(f"There is no file {file}; {_AGAIN}") from error
    except ValueError as error:
        raise DatasetError(f"{error}; {_AGAIN}") from error


def _next_channel(file: PathLike, member: NpzChannels) -> NDArray[Any]:
    try:
        return member.read()
    except ValueError as error:
        raise DatasetError(f"{file} is no readable file of probabilities: {error}; {_AGAIN}") from error
