"""Labels of another shape, made of the same logits while these come in bands, for the next stage of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.configuration import num_compute_threads
from nnunet_lite.inference.banded_prediction import Receiver
from nnunet_lite.inference.plane_stream import PlaneStream
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import InterpolationPlan


class FurtherLabels(NamedTuple):
    """Labels (x, y, z), to be filled, and how logits come to their shape; without a plan only whole logits do."""

    labels: NDArray[Any]
    plan: InterpolationPlan | None


def and_further(receive: Receiver, further: Sequence[FurtherLabels], label_manager: LabelManager) -> Receiver:
    """A receiver of planes of logits that fills these labels, too."""
    if not further:
        return receive
    streams = [
        PlaneStream(labels.plan, label_manager, labels.labels, None, num_compute_threads())
        for labels in further
        if labels.plan is not None
    ]

    def receive_and_fill(number: int, logits: Tensor) -> None:
        receive(number, logits)
        for stream in streams:
            stream.feed(logits)

    return receive_and_fill
