"""Prediction in bands against the sums of the whole image: the same logits, bit by bit, and never more than a band."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_lite.exceptions import NumericalError, OutOfMemory
from nnunet_lite.inference import banded_prediction
from nnunet_lite.inference.banded_prediction import RollingSums, predict_in_bands
from nnunet_lite.inference.logit_prediction import Ensemble, PredictionSettings, predict_logits
from nnunet_lite.utilities.device import num_threads

HEADS = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads would only wait for one another."""
    with num_threads(1):
        yield


def network(axes: int) -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    return nn.Sequential(
        convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, HEADS, 3, padding=1)
    ).requires_grad_(False)


def settings(**changes: Any) -> PredictionSettings:
    values: dict[str, Any] = {
        "patch_size": (6, 8),
        "tile_step_size": 0.5,
        "use_gaussian": True,
        "mirroring_axes": None,
        "heads": HEADS,
        "device": torch.device("cpu"),
        "sums_on_device": False,
        "autocast_dtype": None,
        "dtype_of_sums": torch.float16,
    }
    return PredictionSettings(**(values | changes))


def in_bands(model: nn.Module, image: torch.Tensor, lines: bool, *more: Any, **options: Any) -> torch.Tensor:
    """Logits (heads, x, y, z) put together again."""
    parts: dict[int, list[torch.Tensor]] = {}

    def start() -> Any:
        parts.clear()
        return lambda number, logits: parts.setdefault(number, []).append(logits)

    predict_in_bands(Ensemble(model, *more), image, start, lines=lines, **options)
    return torch.cat([torch.cat(part, 2 if lines else 1) for _, part in sorted(parts.items())], 1)


FLAT = [(1, 30, 21), (1, 6, 8), (4, 13, 9), (3, 4, 5), (2, 40, 3), (1, 3, 50), (1, 1, 1)]
DEEP = [(14, 9, 11), (5, 4, 3), (21, 8, 6), (6, 8, 4), (7, 20, 2)]
CASES = [
    *((shape, True, (6, 8)) for shape in FLAT),
    *((shape, False, (6, 8)) for shape in FLAT),
    *((shape, False, (6, 8, 4)) for shape in DEEP),
]


@pytest.mark.parametrize(("shape", "lines", "patch"), CASES)
@pytest.mark.parametrize(("per_pass", "step"), [(1, 0.3), (3, 0.5), (7, 1)])
def test_the_same_logits(shape, lines, patch, per_pass, step, monkeypatch):
    monkeypatch.setattr(banded_prediction, "PIECE", 50)
    image = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    chosen = settings(patch_size=patch, images_per_pass=per_pass, tile_step_size=step)
    model = network(len(patch))
    expected = predict_logits(model, image, chosen)
    found = in_bands(model, image, lines, chosen)
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("use_gaussian", [True, False])
def test_members_and_mirroring(lines, dtype, use_gaussian):
    image = torch.randn((2, 3, 17, 20), generator=torch.Generator().manual_seed(1))
    model = network(2)
    second = {name: 0.7 * value + 0.1 for name, value in model.state_dict().items()}
    members = ({name: value.clone() for name, value in model.state_dict().items()}, second, second)
    chosen = settings(mirroring_axes=(0, 1), dtype_of_sums=dtype, use_gaussian=use_gaussian, images_per_pass=6)
    expected = predict_logits(model, image, chosen, members, model.load_state_dict)
    assert torch.equal(in_bands(model, image, lines, chosen, members, model.load_state_dict), expected)


class Constant(nn.Module):
    """Puts out one value; can fail for a while."""

    def __init__(self, value: float, failures: int = 0) -> None:
        super().__init__()
        self.value, self.failures, self.sizes = value, failures, []

    def forward(self, tiles):
        self.sizes.append(len(tiles))
        if len(self.sizes) > 4 and self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("no memory")
        return torch.full((len(tiles), HEADS, *tiles.shape[2:]), self.value)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("value", [30000.0, 65504.0, 1e6])
def test_large_logits_do_not_overflow(lines, members, value):
    image, ensemble = torch.zeros(1, 2, 20, 30), ((None,) * members, lambda member: None)
    found = in_bands(Constant(value), image, lines, settings(), *ensemble)
    assert torch.equal(found, predict_logits(Constant(value), image, settings(), *ensemble))
    assert found.shape == (HEADS, 2, 20, 30)
    assert torch.allclose(found.float(), torch.tensor(value).clamp(max=65504), rtol=3e-3)


def test_memory_that_runs_out_is_met_with_smaller_passes():
    model = Constant(1.0, failures=1)
    found = in_bands(model, torch.zeros(1, 1, 60, 30), True, settings(images_per_pass=4))
    assert bool((found == 1).all()) and found.shape == (HEADS, 1, 60, 30)
    assert set(model.sizes[:5]) == {4} and max(model.sizes[5:]) == 2
    with pytest.raises(OutOfMemory, match=r"\(1, 60, 30\) voxels.* for image and sums in main memory"):
        in_bands(Constant(1.0, failures=9), torch.zeros(1, 1, 60, 30), True, settings(images_per_pass=4))


@pytest.mark.parametrize(("lines", "patch"), [(True, (6, 8)), (False, (6, 8)), (False, (2, 6, 8))])
def test_output_that_is_no_number_names_the_tile_as_without_bands(lines, patch):
    image, chosen = torch.zeros(2, 5, 20, 30), settings(patch_size=patch)
    image[0, 3, 13, 17] = torch.nan
    model = network(len(patch))
    with pytest.raises(NumericalError, match=r"tile \[.*\] of the padded image") as expected:
        predict_logits(model, image, chosen)
    with pytest.raises(NumericalError) as found:
        in_bands(model, image, lines, chosen)
    assert str(found.value) == str(expected.value)


def test_a_thread_of_its_own_receives_in_order_and_its_errors_are_raised():
    pieces = ((number, torch.full((1,), number)) for number in range(20))
    found: list[int] = []
    banded_prediction._hand_on(pieces, lambda number, logits: found.append(int(logits)), in_background=True)
    assert found == list(range(20))

    def fail(number: int, logits: torch.Tensor) -> None:
        raise OSError("no space")

    pieces = ((number, torch.full((1,), number)) for number in range(20))
    with pytest.raises(OSError, match="no space"):
        banded_prediction._hand_on(pieces, fail, in_background=True)


@pytest.mark.parametrize("axis", [1, 2])
def test_rolling_sums_hold_a_band(axis):
    shape = [2, 10, 10, 3]
    sums = RollingSums(shape, axis, torch.float32, torch.device("cpu"))
    sums.reach(4).add_(1)
    assert bool((sums.part(0, 4) == 1).all())
    sums.forget(3)
    assert sums.first == 3
    band = sums.reach(6)
    assert band.shape[axis] == 3
    assert band.sum((0, 3)).flatten().unique().tolist() == [0, 6]
    assert bool((sums.part(3, 4) == 1).all()) and not sums.part(4, 6).any()


def test_only_a_band_is_held(monkeypatch):
    longest = 0
    reach = RollingSums.reach

    def watched(self: RollingSums, stop: int) -> torch.Tensor:
        nonlocal longest
        band = reach(self, stop)
        longest = max(longest, band.shape[self._axis] if len(band) == HEADS else 0)
        return band

    monkeypatch.setattr(RollingSums, "reach", watched)
    in_bands(Constant(1.0), torch.zeros(2, 1, 200, 30), True, settings(images_per_pass=1))
    assert longest == 6
    in_bands(Constant(1.0), torch.zeros(2, 50, 20, 10), False, settings(images_per_pass=1, patch_size=(8, 6, 6)))
    assert longest == 8


@pytest.mark.parametrize("in_background", [False, True])
def test_sums_are_freed_before_all_is_done_anew(monkeypatch, in_background):
    """The receiver's memory ends; what the bands held on the device is gone when it is asked for again."""
    alive: weakref.WeakSet[RollingSums] = weakref.WeakSet()
    make, hand_on = RollingSums.__init__, banded_prediction._hand_on

    def watched(self: RollingSums, *arguments: Any) -> None:
        make(self, *arguments)
        alive.add(self)

    def receive(number: int, logits: torch.Tensor) -> None:
        if len(counts) == 1:
            raise torch.OutOfMemoryError("no memory")
        found.append(logits)

    def start() -> Any:
        counts.append(len(alive))
        return receive

    counts: list[int] = []
    found: list[torch.Tensor] = []
    monkeypatch.setattr(RollingSums, "__init__", watched)
    monkeypatch.setattr(banded_prediction, "_hand_on", lambda *arguments, **_: hand_on(*arguments, in_background))
    gc.collect()
    gc.disable()  # a cycle would be as good as a leak: nothing looks for them while the device allocates
    try:
        image, chosen = torch.zeros(1, 50, 20, 10), settings(sums_on_device=True)
        predict_in_bands(Ensemble(Constant(1.0), chosen), image, start, lines=False)
    finally:
        gc.enable()
    assert counts == [0, 0] and bool((torch.cat(found, 1) == 1).all())


def test_an_image_that_does_not_fit_on_the_device_stays_in_main_memory(monkeypatch, caplog):
    """What is free there was estimated: moving the image may fail all the same."""
    tiles_of = Ensemble.tiles_of

    def scarce(self: Ensemble, image: torch.Tensor) -> Any:
        if self.settings.sums_on_device:
            raise torch.OutOfMemoryError("no memory")
        return tiles_of(self, image)

    monkeypatch.setattr(Ensemble, "tiles_of", scarce)
    found = in_bands(Constant(1.0), torch.zeros(1, 9, 20, 10), False, settings(sums_on_device=True))
    assert bool((found == 1).all()) and "beside one image in the network" in caplog.text
