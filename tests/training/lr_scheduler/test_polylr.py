"""Golden learning rates of spec 02, section 12."""

from __future__ import annotations

import pytest
import torch

from nnunet_lite.training.lr_scheduler.polylr import PolyLRScheduler


@pytest.mark.parametrize(
    ("max_steps", "step", "value"),
    [
        (1000, 0, 0.01),
        (1000, 1, 0.009990999549834914),
        (1000, 100, 0.009095325760829623),
        (1000, 499, 0.005368512309954805),
        (1000, 500, 0.005358867312681466),
        (1000, 998, 3.723291133272141e-05),
        (1000, 999, 1.995262314968881e-05),
        (5, 1, 0.008180521460508584),
        (5, 4, 0.0023492378861760376),
        (2, 1, 0.005358867312681466),
    ],
)
def test_golden_values(max_steps: int, step: int, value: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = PolyLRScheduler(optimizer, 0.01, max_steps)
    scheduler.step(step)
    assert optimizer.param_groups[0]["lr"] == value
    assert scheduler.get_last_lr() == [value]


def test_first_rate_is_set_at_once_and_steps_count_up_without_an_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = PolyLRScheduler(optimizer, 0.01, 5)
    assert optimizer.param_groups[0]["lr"] == 0.01
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.008180521460508584
