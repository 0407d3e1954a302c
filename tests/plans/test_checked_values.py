"""Values that people edit: returned as they stand, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans import checked_values as checked

HUGE = 10**400  # JSON knows no limit, floats do


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checked.whole_number, 2),
        (checked.whole_number, np.int64(3)),
        (checked.numbers, [1.5, 2]),
        (checked.numbers_or_none, [None, 1.0, 2.0]),
        (checked.axis_order, [2, 0, 1]),
        (checked.fraction, 0.25),
        (checked.statistics, {"0": {"mean": -1e12, "std": float("nan"), "max": 2**40}}),
        (checked.triples, [[1, 2, 3]]),
    ],
)
def test_sound_values_stay_as_they_are(check: Callable[..., Any], value: Any) -> None:
    assert check(value, "it") == value


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checked.whole_number, 2.5),
        (checked.whole_number, True),
        (checked.whole_number, float("nan")),
        (checked.whole_number, HUGE),
        (checked.numbers, [1.0, HUGE]),
        (checked.numbers, [1.0, float("inf")]),
        (checked.numbers_or_none, [None, -1.0, 2.0]),
        (checked.axis_order, [0, 0, 1]),
        (checked.axis_order, [0, 1, HUGE]),
        (checked.fraction, -HUGE),
        (checked.fraction, float("nan")),
        (checked.statistics, {"0": {"mean": HUGE}}),
        (checked.triples, [[1, 2, HUGE]]),
    ],
)
def test_others_are_refused_in_one_line(check: Callable[..., Any], value: Any) -> None:
    with pytest.raises(PlansError, match=r"^it.* is .*, expected .*; correct it or plan the dataset again$"):
        check(value, "it")
