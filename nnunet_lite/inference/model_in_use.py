"""A model as a predictor uses it: network, weights of its members, documents, and how it is applied to an image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.case_resources import Network
from nnunet_lite.inference.data_iterators import ModelDocuments
from nnunet_lite.inference.device_memory import DeviceMemory, Weights
from nnunet_lite.inference.logit_prediction import PredictionSettings, Progress, predict_logits
from nnunet_lite.inference.memory_of_sums import most_bytes_of_sums
from nnunet_lite.models.checkpoint import load_weights
from nnunet_lite.models.loaded_weights import LoadedWeights
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.logging import stderr_is_terminal
from nnunet_lite.utilities.turns import Turns


class ModelInUse:
    """What `nnUNetPredictor`, whose constructor sets all of this, stands on."""

    tile_step_size: float
    use_gaussian: bool
    use_mirroring: bool
    perform_everything_on_device: bool
    device: torch.device  # or its name, where somebody set it
    verbose: bool
    verbose_preprocessing: bool
    allow_tqdm: bool
    autocast_dtype: torch.dtype | None
    dtype_of_sums: torch.dtype
    max_ram: int | None
    list_of_parameters: list[Weights] | None
    allowed_mirroring_axes: tuple[int, ...] | None
    plans_manager = cast("PlansManager", None)  # these five: until there is a model
    configuration_manager = cast("ConfigurationManager", None)
    dataset_json = cast("dict[str, Any]", None)
    label_manager = cast("LabelManager", None)
    network = cast("nn.Module", None)

    _loaded: LoadedWeights | None
    _memory: DeviceMemory
    _turns: Turns  # of the threads that use the network, which has the weights of one member at a time
    _progress: Progress | None = None  # what counts tiles while a step of somebody's own runs

    def network_size(self) -> Network:
        """What decides how much memory a case's logits take."""
        heads, members = self.label_manager.num_segmentation_heads, len(self._members())
        sums_here, most = not self.perform_everything_on_device, most_bytes_of_sums(self.max_ram)
        return Network(heads, members, sums_here, self.dtype_of_sums.itemsize, most)

    def _predict(self, data: Tensor, members: Sequence[Weights | None], progress: Progress | None = None) -> Tensor:
        self._require_model()
        with self._bar(progress or self._progress) as bar:
            return predict_logits(self.network, data, self._settings(), members, self._load, bar)

    def _bar(self, progress: Progress | None) -> Any:
        if progress is not None:
            return nullcontext(progress)
        return tqdm(disable=not (self.allow_tqdm and stderr_is_terminal()), leave=False, unit="tile")

    def _settings(self) -> PredictionSettings:
        return PredictionSettings(
            patch_size=tuple(self.configuration_manager.patch_size),
            tile_step_size=self.tile_step_size,
            use_gaussian=self.use_gaussian,
            mirroring_axes=self._mirroring_axes(),
            heads=self.label_manager.num_segmentation_heads,
            device=torch.device(self.device),
            sums_on_device=self.perform_everything_on_device,
            autocast_dtype=self.autocast_dtype,
            dtype_of_sums=self.dtype_of_sums,
            max_ram=self.max_ram,
            memory=self._memory,
        )

    def _mirroring_axes(self) -> tuple[int, ...] | None:
        return self.allowed_mirroring_axes if self.use_mirroring else None

    def _members(self) -> Sequence[Weights | None]:
        """Weights of each member, or one None: the network as it is."""
        return self.list_of_parameters or (None,)

    def _load(self, member: Weights | None) -> None:
        if member is None or (self._loaded is not None and self._loaded.still_holds(self.network, member)):
            return
        self._loaded = None  # should it be stopped halfway, the network has no member's weights
        load_weights(self.network, member)
        self._loaded = LoadedWeights(self.network, member)

    def _require_model(self) -> None:
        if self.network is None:
            raise ArgumentError(
                "This predictor has no model yet: call initialize_from_trained_model_folder, or manual_initialization"
            )

    def _documents(self) -> ModelDocuments:
        self._require_model()
        return ModelDocuments(self.plans_manager.plans, self.configuration_manager, self.dataset_json)
