"""What a GPU is asked for while it predicts: everything stays there, and nothing waits for it tile by tile.

The device `meta` stands for the GPU. It refuses tensors of another device (indices excepted), and has no values:
whoever asks for one, which makes a GPU's host wait, fails, but for the three places that may ask and are counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunet_lite.inference import plane_stream, sliding_window_prediction
from nnunet_lite.inference.banded_prediction import predict_in_bands
from nnunet_lite.inference.device_reduction import reduce_logits_on_device
from nnunet_lite.inference.logit_prediction import Ensemble, PredictionSettings, logits_on_device
from nnunet_lite.inference.plane_stream import PlaneStream
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import interpolation_plan

GPU = torch.device("meta")
HEADS = 3
LABELS = {
    "labels": LabelManager({"background": 0, "a": 1, "b": 2}, None),
    "labels with gaps": LabelManager({"background": 0, "a": 4, "b": 1000}, None),
    "regions": LabelManager({"background": 0, "x": [1, 2, 3], "y": [2, 3], "z": 3}, [1, 300, 3]),
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """How often somebody waited: to see whether tiles are numbers, how large a member's logits are, or for labels."""
    found: list[str] = []

    def all_good(self: Tensor) -> list[float]:
        assert self.device == GPU and self.ndim == 1
        found.append("tiles" if self.dtype == torch.bool else "largest")
        return [1] * len(self)

    def brought(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if self.device != GPU:
            return self
        assert not self.is_floating_point(), "logits stay on the GPU"
        found.append("labels")
        return torch.ones(self.shape, dtype=self.dtype)

    monkeypatch.setattr(Tensor, "tolist", all_good)
    monkeypatch.setattr(Tensor, "cpu", brought)
    yield found


def ensemble(axes: int, **changes: Any) -> Ensemble:
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    network = nn.Sequential(convolution(1, 4, 3, padding=1), nn.LeakyReLU(), convolution(4, HEADS, 1))
    members = [{name: value.clone() for name, value in network.state_dict().items()} for _ in range(2)]
    values: dict[str, Any] = {
        "patch_size": (4, 6, 8)[3 - axes :],
        "tile_step_size": 0.5,
        "use_gaussian": True,
        "mirroring_axes": (0, 1),
        "heads": HEADS,
        "device": GPU,
        "sums_on_device": True,
        "autocast_dtype": None,
        "dtype_of_sums": torch.float16,
        "images_per_pass": 8,
    }
    return Ensemble(network, PredictionSettings(**(values | changes)), members, lambda member: None)


@pytest.mark.parametrize(
    ("axes", "dtype", "labels"),
    [
        (3, torch.float16, "labels"),
        (3, torch.float32, "regions"),
        (2, torch.float16, "labels with gaps"),
        (2, torch.float32, "labels"),
    ],
)
def test_the_sums_of_the_whole_image(axes, dtype, labels, waits):
    image = torch.zeros(1, 3, 20, 30)  # fewer planes than a patch of three axes: padded, and cut afterwards
    with torch.inference_mode():
        logits = logits_on_device(ensemble(axes, dtype_of_sums=dtype), image)
    assert logits is not None and logits.device == GPU and logits.shape == (HEADS, 3, 20, 30)
    largest = ["largest"] * 2 if dtype == torch.float16 else []
    assert waits == ["tiles"] * 2 + largest, "once for each member: their passes are looked at together"
    found = np.zeros((6, 25, 20), np.uint16)
    plan = interpolation_plan((3, 20, 30), found.shape, (1, 1, 1), (1, 1, 1), 1)
    reduce_logits_on_device(logits, plan, LABELS[labels], found, 10**6)
    assert waits[2:] == [*largest, "labels"] and bool((found == 1).all())


def test_looks_are_far_apart(waits, monkeypatch):
    monkeypatch.setattr(sliding_window_prediction, "_PASSES_UNSEEN", 5)
    image = torch.zeros(1, 4, 33, 8)  # 10 tiles, two in a pass without the copies
    with torch.inference_mode():
        logits_on_device(ensemble(3, mirroring_axes=None, images_per_pass=1), image)
    assert waits.count("tiles") == 2 * 2


@pytest.mark.parametrize("axes", [2, 3])
def test_bands(axes, waits, monkeypatch):
    monkeypatch.setattr(plane_stream, "reduces_on", lambda device: device == GPU)
    shape = (1, 60, 30) if axes == 2 else (60, 7, 8)
    plan = interpolation_plan(shape, shape, (1, 1, 1), (1, 1, 1), 1)
    found = np.zeros(shape, np.uint8)
    stream = PlaneStream(plan, LABELS["labels"], found, axis=1 if axes == 2 else 0)
    chosen = ensemble(axes)
    predict_in_bands(
        chosen,
        torch.zeros(1, *shape),
        lambda: lambda number, logits: stream.feed(logits),
        lines=axes == 2,
        on_device=True,
    )
    assert bool((found == 1).all())
    bands = waits.count("labels")
    assert bands > 5 and waits.count("tiles") == 2 * bands, "once for each member and band"
