"""Values of plans and fingerprints, which people edit: each is returned as it stands, or refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.dataset_json import is_file_name, short

_LARGEST = 2**31
_WORDS = {2: "two", 3: "three"}


def _refused(what: str, value: Any, expected: str) -> PlansError:
    return PlansError(f"{what} is {short(value)}, expected {expected}; correct it or plan the dataset again")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    number: Any = value  # compared as it is: no float can hold every whole number of a JSON file
    return bool(-_LARGEST < number < _LARGEST)  # NaN is not


def _is_beyond_float(number: Any) -> bool:
    """Whether a number is finite and no float can hold it; JSON knows no limit."""
    return isinstance(number, int) and abs(number) > sys.float_info.max


def whole_number(value: Any, what: str) -> int:
    """A whole number above zero. Raises PlansError."""
    if not _is_number(value) or value < 1 or value != int(value):
        raise _refused(what, value, "a whole number above 0")
    return int(value)


def numbers(value: Any, what: str, lengths: tuple[int, ...] = (2, 3), *, whole: bool = False) -> list[Any]:
    """Two or three finite numbers above zero, or as many as `lengths` allow. Raises PlansError."""
    sound = isinstance(value, (list, tuple, np.ndarray)) and len(value) in lengths
    if not sound or not all(_is_number(n) and n > 0 and (not whole or n == int(n)) for n in value):
        kind = "positive whole numbers" if whole else "positive numbers"
        raise _refused(what, value, f"{' or '.join(_WORDS[length] for length in lengths)} {kind}")
    return cast("list[Any]", value)


def numbers_or_none(value: Any, what: str) -> list[Any]:
    """Two or three entries, each a finite number above zero or None. Raises PlansError."""
    if isinstance(value, (list, tuple)) and None in value:
        numbers([1.0 if entry is None else entry for entry in value], what)
        return list(value)
    return numbers(value, what)


def axis_order(value: Any, what: str) -> list[int]:
    """The numbers 0, 1, 2 in some order. Raises PlansError."""
    if not isinstance(value, (list, tuple, np.ndarray)) or not all(_is_number(n) for n in value):
        raise _refused(what, value, "0, 1, 2 in some order")
    if sorted(value) != [0, 1, 2]:
        raise _refused(what, value, "0, 1, 2 in some order")
    return cast("list[int]", value)


def text(value: Any, what: str) -> str:
    """A name. Raises PlansError."""
    if not isinstance(value, str) or not value:
        raise _refused(what, value, "a text")
    return value


def folder_name(value: Any, what: str) -> str:
    """The name of a file or folder in one of ours. Raises PlansError for paths that could lead elsewhere."""
    if not is_file_name(value):
        raise _refused(what, value, "the name of a folder, without slashes")
    return cast("str", value)


def entries(value: Any, what: str, kind: type) -> list[Any]:
    """A list of texts (or booleans ...). Raises PlansError."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, kind) for entry in value):
        raise _refused(what, value, f"a list of {'true and false' if kind is bool else 'texts'}")
    return cast("list[Any]", value)


def mapping(value: Any, what: str) -> dict[str, Any]:
    """A JSON object. Raises PlansError."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refused(what, value, "an object {...}")
    return cast("dict[str, Any]", value)


def statistics(value: Any, what: str) -> dict[str, dict[str, float]]:
    """Numbers by name for each channel. Raises PlansError."""
    for channel, properties in mapping(value, what).items():
        for name, number in mapping(properties, f"{what}, channel {short(channel, 40)},").items():
            if isinstance(number, bool) or not isinstance(number, Real) or _is_beyond_float(number):
                raise _refused(f"{what}, channel {short(channel, 40)}, {short(name, 40)}", number, "a number")
    return cast("dict[str, dict[str, float]]", value)


def triples(value: Any, what: str) -> list[Sequence[float]]:
    """Three finite numbers above zero for each case. Raises PlansError."""
    if not isinstance(value, list):
        raise _refused(what, value, "a list with three numbers for each case")
    return [numbers(entry, f"{what} of case {index}", (3,)) for index, entry in enumerate(value)]


def fraction(value: Any, what: str) -> float:
    """A finite number. Raises PlansError."""
    if not _is_number(value):
        raise _refused(what, value, "a number")
    return float(value)
