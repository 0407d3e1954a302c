"""postprocessing.pkl, which upstream reads, and postprocessing.json, which says the same: no code in either.

Upstream's pickle names a function of its own package. It is written here opcode by opcode, since that package need not
be installed, and read by an unpickler that knows this one function besides plain values.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.postprocessing.connected_components import (
    LabelsOrRegions,
    members_of,
    remove_all_but_largest_component_from_segmentation,
)
from nnunet_lite.utilities.files import PathLike, RestrictedUnpickler, load_json, write_bytes

FUNCTION = "remove_all_but_largest_component_from_segmentation"
_MODULE = "nnunetv2.postprocessing.remove_connected_components"
_OWN_MODULES = tuple(
    f"nnunet_lite.postprocessing.{name}" for name in ("remove_connected_components", "connected_components")
)
_KNOWN_ARGUMENTS = {"labels_or_regions", "background_label"}


def save_postprocessing(kwargs: Sequence[Mapping[str, Any]], file: PathLike) -> None:
    """Write a pickle of ([function, ...], [arguments, ...]) that upstream loads (spec 03, 6.7)."""
    plain = pickle.dumps([_plain(arguments) for arguments in kwargs], protocol=2)
    name = f"c{_MODULE}\n{FUNCTION}\n".encode()
    functions = b"](" + name * len(kwargs) + b"e"
    content = plain[:2] + b"(" + functions + plain[2:-1] + b"t."  # the second list stands without its header and end
    write_bytes(content, file)


def load_postprocessing(file: PathLike) -> list[dict[str, Any]]:
    """The arguments of each step, in order; from a `.pkl` of ours or upstream's, or a postprocessing.json.

    Raises:
        DatasetError: no such file, damaged, or it asks for anything but the removal of small components.
    """
    path = Path(file)
    if path.is_dir():
        raise DatasetError(f"{path} is a folder, expected a file such as {path / 'postprocessing.pkl'}")
    if not path.is_file():
        raise DatasetError(
            f"There is no postprocessing file {path}; nnUNetv2_determine_postprocessing and "
            "nnUNetv2_find_best_configuration make one"
        )
    functions, kwargs = _from_json(path) if path.suffix == ".json" else _from_pickle(path)
    for function in functions:
        if function not in (FUNCTION, remove_all_but_largest_component_from_segmentation):
            raise DatasetError(f"{path} asks for the function {function}; only {FUNCTION} is known")
    if len(functions) != len(kwargs):
        raise DatasetError(f"{path} has {len(functions)} functions and arguments for {len(kwargs)}; make it again")
    return [_checked(arguments, path) for arguments in kwargs]


class _Unpickler(RestrictedUnpickler):
    """Knows the one function of a postprocessing file as well."""

    def find_class(self, module: str, name: str) -> Any:
        if name == FUNCTION and module in (_MODULE, *_OWN_MODULES):
            return remove_all_but_largest_component_from_segmentation
        return super().find_class(module, name)


def _from_pickle(path: Path) -> tuple[Sequence[Any], Sequence[Any]]:
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes())).load()
        if not isinstance(content, tuple):
            raise ValueError(f"it holds {type(content).__name__}, expected functions and their arguments")
        functions, kwargs = content
        return list(functions), list(kwargs)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DatasetError(
            f"{path} is no postprocessing file that could be used ({error}); name postprocessing.json beside it, if "
            "there is one, or determine the postprocessing again"
        ) from error


def _from_json(path: Path) -> tuple[Sequence[Any], Sequence[Any]]:
    try:
        content = load_json(path)
        return list(content["postprocessing_fns"]), list(content["postprocessing_kwargs"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is no postprocessing.json: expected the lists postprocessing_fns and postprocessing_kwargs "
            f"({type(error).__name__}: {error})"
        ) from error


def _checked(arguments: Any, path: Path) -> dict[str, Any]:
    if not isinstance(arguments, Mapping) or not {"labels_or_regions"} <= set(arguments) <= _KNOWN_ARGUMENTS:
        raise DatasetError(f"{path} has the arguments {arguments!r}, expected labels_or_regions (and background_label)")
    members_of(arguments["labels_or_regions"])
    return _plain(arguments)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without numpy's numbers, which do not load in other versions of numpy."""
    background = int(arguments.get("background_label", 0))
    plain: dict[str, Any] = {"labels_or_regions": _plain_labels(arguments["labels_or_regions"])}
    return {**plain, "background_label": background} if background else plain


def _plain_labels(entry: Any) -> LabelsOrRegions:
    if isinstance(entry, (list, tuple)):
        kind = type(entry)
        return kind(_plain_labels(member) for member in entry)
    return int(entry)
