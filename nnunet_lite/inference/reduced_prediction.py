"""Prediction without logits of the whole image in main memory: on a GPU, or in bands, they become labels at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.configuration import num_compute_threads
from nnunet_lite.inference.banded_prediction import Receiver, predict_in_bands
from nnunet_lite.inference.data_iterators import ModelDocuments
from nnunet_lite.inference.device_reduction import reduce_logits_on_device, reduces_on
from nnunet_lite.inference.export_prediction import (
    ViewsInNetworkSpace,
    empty_labels,
    linear_plan,
    load_mapped,
    save_probabilities_file,
    views_in_network_space,
)
from nnunet_lite.inference.further_labels import FurtherLabels, and_further
from nnunet_lite.inference.logit_prediction import Ensemble, logits_on_device
from nnunet_lite.inference.memory_of_sums import bands_are_lines, most_bytes_of_sums
from nnunet_lite.inference.plane_stream import PlaneStream
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan
from nnunet_lite.utilities.files import save_pickle, scratch_array
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size


class ReducedPrediction(NamedTuple):
    """A case's labels (d0, d1, d2) in the image's geometry, or the `.npy` file they lie in; probabilities if wanted.

    Those that belong into a file have been written already.
    """

    labels: NDArray[Any] | str
    probabilities: NDArray[np.float32] | None = None

    def finish(self, properties: Mapping[str, Any], documents: ModelDocuments, output: str | None) -> Any:
        """Write the segmentation, or without an output return labels or (labels, probabilities)."""
        labels = load_mapped(self.labels)
        if output is None:
            return labels if self.probabilities is None else (labels, self.probabilities)
        file = f"{output}{documents.dataset_json['file_ending']}"
        PlansManager(documents.plans).image_reader_writer_class().write_seg(labels, file, properties)
        return None


class CaseReduction(NamedTuple):
    """What is to be made of a preprocessed case."""

    name: str
    properties: Mapping[str, Any]
    documents: ModelDocuments
    output: str | None  # path without file ending
    with_probabilities: bool
    further: Sequence[FurtherLabels] = ()  # made of the same logits

    def predict(self, ensemble: Ensemble, image: Tensor) -> ReducedPrediction | None:
        """Predict and reduce where logits can stay on a GPU, or are large, else return None and do nothing.

        Logits are also left to the ordinary path where something must see all of them: a resampling function that is
        not linear, or a label manager of one's own.

        Args:
            ensemble: how to predict.
            image: (c, x, y, z), preprocessed.
        """
        settings = ensemble.settings
        plans_manager, configuration = PlansManager(self.documents.plans), self.documents.configuration
        label_manager = plans_manager.get_label_manager(self.documents.dataset_json)
        if image.ndim != 4 or type(label_manager) is not LabelManager:
            return None
        size = settings.memory_of_sums(image.shape[1:], len(ensemble.members)).whole
        only_labels = not self.with_probabilities and not self.further
        on_device = settings.sums_on_device and only_labels and reduces_on(settings.device)
        is_large = size > most_bytes_of_sums(settings.max_ram)
        if not (on_device or is_large):
            return None
        plan = linear_plan(plans_manager, configuration, self.properties, image.shape[1:])
        if plan is None or any(labels.plan is None for labels in self.further):
            return None

        def views(probabilities: NDArray[np.float32] | None) -> ViewsInNetworkSpace:
            return views_in_network_space(plans_manager, label_manager, self.properties, labels, probabilities)

        logits = logits_on_device(ensemble, image) if on_device else None
        labels = empty_labels(plans_manager, label_manager, self.properties)
        if logits is not None:
            reduce_logits_on_device(logits, plan, label_manager, views(None).labels)
            return ReducedPrediction(labels)
        if not is_large:
            return None
        logger.info("%s: logits would take %s; they are predicted and reduced in bands", self.name, format_size(size))
        shapes = ([axis.size_in for axis in plan.axes], [axis.size_out for axis in plan.axes])
        lines = bands_are_lines(settings.patch_size, settings.heads, *shapes) and not self.further

        def run(probabilities: NDArray[np.float32] | None) -> None:
            inside = views(probabilities)
            predict_in_bands(
                ensemble,
                image,
                lambda: and_further(_receiver(plan, label_manager, inside, lines), self.further, label_manager),
                lines=lines,
                on_device=on_device,
            )

        return self._with_probabilities(run, labels, settings.heads)

    def _with_probabilities(
        self, run: Callable[[NDArray[np.float32] | None], None], labels: NDArray[Any], heads: int
    ) -> ReducedPrediction:
        """Let `run` fill the labels and, if they are wanted, probabilities in memory or for a file."""
        shape = (heads, *labels.shape)
        if not self.with_probabilities:
            run(None)
            return ReducedPrediction(labels)
        if self.output is None:
            probabilities: NDArray[np.float32] = np.empty(shape, np.float32)
            run(probabilities)
            return ReducedPrediction(labels, probabilities)
        file = f"{self.output}.npz"
        with scratch_array(file, shape, np.float32) as probabilities:
            run(probabilities)
            save_probabilities_file(probabilities, file)
            del probabilities
        save_pickle(dict(self.properties), f"{self.output}.pkl")
        return ReducedPrediction(labels)


def _receiver(
    plan: InterpolationPlan, label_manager: LabelManager, inside: ViewsInNetworkSpace, lines: bool
) -> Receiver:
    """What takes finished logits: one stream for the volume, or one for each of its slices."""
    threads = num_compute_threads()
    if not lines:
        streams = [PlaneStream(plan, label_manager, *inside, threads)]
    else:
        one = AxisMap("identity", 1, 1, 1)
        of_slice = replace(plan, axes=(one, *plan.axes[1:]))
        streams = [
            PlaneStream(
                of_slice,
                label_manager,
                inside.labels[number : number + 1],
                None if inside.probabilities is None else inside.probabilities[:, number : number + 1],
                threads,
                axis=1,
            )
            for number in range(len(inside.labels))
        ]
    return lambda number, logits: streams[number].feed(logits)
