"""The mean over an ensemble: of any number of members, whatever their logits."""

from __future__ import annotations

import pytest
import torch

from nnunet_lite.inference.sum_of_members import SumOfMembers


def mean_of(members: list[torch.Tensor]) -> torch.Tensor:
    total = SumOfMembers(len(members))
    for logits in members:
        total.add(logits.clone())
    return total.mean()


def random_members(number: int, size: float, dtype: torch.dtype = torch.float16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [
        (size * torch.randn((3, 4, 5, 6), generator=generator)).clamp(-65504, 65504).to(dtype) for _ in range(number)
    ]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 10])
def test_ordinary_logits_are_added_in_half_precision_as_upstream_does(number):
    members = random_members(number, 100)
    expected = members[0].clone()
    for logits in members[1:]:
        expected += logits
    expected /= number
    assert torch.equal(mean_of(members), expected)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("size", [20000, 65504])
def test_large_logits_do_not_overflow(number, size):
    members = random_members(number, size)
    exact = torch.stack(members).double().mean(0)
    found = mean_of(members)
    assert found.dtype == torch.float16
    assert (found - exact).abs().max() <= number * 2**-11 * 65504  # a rounding each
    lowest = mean_of([torch.full((2, 3, 3, 3), -65504.0).half()] * number)
    assert lowest.unique().item() == pytest.approx(-65504, rel=1e-3)


def test_logits_become_large_later():
    values = (1.0, 2.0, 60000.0, 60000.0, 60000.0)
    found = mean_of([torch.full((2, 3, 3, 3), value).half() for value in values])
    assert found.unique().item() == pytest.approx(sum(values) / 5, rel=2e-3)


@pytest.mark.parametrize("number", [1, 3])
def test_sums_in_float32_are_rounded_once(number):
    members = random_members(number, 100, torch.float32)
    found = mean_of(members)
    total = members[0].clone()
    for logits in members[1:]:
        total += logits
    assert torch.equal(found, (total / number).half())


def test_a_part_of_the_sums_is_added_in_place():
    whole = torch.full((2, 6, 6, 6), 40960.0).half()
    total = SumOfMembers(2)
    for _ in range(2):
        total.add(whole.clone()[:, 1:4])
    assert total.mean().unique().tolist() == [40960.0]
