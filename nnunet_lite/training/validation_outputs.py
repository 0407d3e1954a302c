"""What the final validation writes of each case, which of it is there already, and how the rest is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.inference.data_iterators import ModelDocuments
from nnunet_lite.inference.export_prediction import export_prediction_from_logits, load_mapped, resample_and_save
from nnunet_lite.inference.reduced_prediction import ReducedPrediction
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class, nnUNetDatasetNumpy
from nnunet_lite.training.previous_stage import NEXT_STAGE_FOLDER
from nnunet_lite.training.validation_journal import (
    FinishedOutputs,
    case_signature,
    remove_half_written,
    settings_signature,
)
from nnunet_lite.utilities.distributed import rank, world_size
from nnunet_lite.utilities.parts import Part

SEGMENTATION, PROBABILITIES = "segmentation", "probabilities"

_SOURCE_ENDINGS = (".b2nd", ".npz", ".npy")
_CONFIGURATION_KEYS = ("patch_size", "spacing", "resampling_fn_probabilities", "resampling_fn_probabilities_kwargs")
_LABEL_KEYS = ("labels", "regions_class_order", "file_ending")


class NextStage(NamedTuple):
    """A configuration that learns from this one's predictions, and its preprocessed cases."""

    folder: str
    dataset_class: Any
    identifiers: frozenset[str]

    def shape_of(self, key: str) -> tuple[int, ...]:
        """Spatial shape of a case there."""
        shape: tuple[int, ...] = self.dataset_class(self.folder, [key]).shape_of(key)
        return shape[1:]


class CaseExport(NamedTuple):
    """What to write of a case; next stages as (path without ending, shape, dataset class)."""

    stem: str
    segmentation: bool
    probabilities: bool
    next_stages: tuple[tuple[str, tuple[int, ...], Any], ...]


class ValidationOutputs:
    """The outputs of a fold's final validation: segmentations, probabilities if wanted, files for next stages.

    Args:
        trainer: with the weights to validate.
        keys: all validation cases; those of this process are `mine`.
        save_probabilities: whether they are wanted.
        settings: of the prediction.
    """

    def __init__(
        self, trainer: Any, keys: Sequence[str], save_probabilities: bool, settings: Mapping[str, Any]
    ) -> None:
        self._trainer = trainer
        self.folder = Path(trainer.output_folder, "validation")
        part = Part(rank(), world_size())
        self.mine = part.of(sorted(set(keys)))
        self._ending = trainer.dataset_json["file_ending"]
        self._wanted = [SEGMENTATION, PROBABILITIES] if save_probabilities else [SEGMENTATION]
        self._next_stages = self._find_next_stages()
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, *(self._next_stage_folder(name) for name in self._next_stages)):
            remove_half_written(folder, self.mine)
        self._kept: list[str] = []  # cases whose file for a next stage is of another fold
        self._finished = FinishedOutputs(Path(trainer.output_folder), part)
        configuration = trainer.configuration_manager.configuration
        self._settings = settings_signature(
            trainer.network,
            {
                **settings,
                "mirroring_axes": trainer.inference_allowed_mirroring_axes,
                "configuration": {key: configuration.get(key) for key in _CONFIGURATION_KEYS},
                "dataset": {key: trainer.dataset_json.get(key) for key in _LABEL_KEYS},
            },
        )

    def missing(self) -> dict[str, list[str]]:
        """Case -> outputs that are not there, or were made with other weights or from other data."""
        missing: dict[str, list[str]] = {}
        self._kept = []
        for key in self.mine:
            stages = [name for name in self._next_stages if self._is_wanted_by(name, key)]
            left = [
                output
                for output in (*self._wanted, *stages)
                if not self._finished.has(key, output, self._signature(key, output), self._files(key, output))
            ]
            if left:
                missing[key] = left
        if self._kept:
            self._say(f"{len(self._kept)} predictions for next stages are kept: their folds had not seen these cases")
        return missing

    def _is_wanted_by(self, name: str, key: str) -> bool:
        """Whether a next stage needs this case; fold `all` has seen it in training, so leaves other folds' work."""
        stage = self._next_stages[name]
        if key not in stage.identifiers:
            self._say(f"Nothing predicted for {name} of {key}: it is not preprocessed in {stage.folder}")
            return False
        files = self._files(key, name)
        if self._trainer.fold != "all" or not files[0].is_file() or self._finished.wrote(key, name, files):
            return True
        self._kept.append(key)
        return False

    def _say(self, line: str) -> None:
        self._trainer.print_to_log_file(line)

    def export_of(self, key: str, outputs: Sequence[str]) -> CaseExport:
        """What a worker needs to write these outputs."""
        stages = tuple(
            (str(self._next_stage_folder(name) / key), stage.shape_of(key), stage.dataset_class)
            for name, stage in self._next_stages.items()
            if name in outputs
        )
        return CaseExport(str(self.folder / key), SEGMENTATION in outputs, PROBABILITIES in outputs, stages)

    def note(self, key: str, outputs: Sequence[str]) -> None:
        """Remember that these outputs are complete."""
        written = {*outputs, SEGMENTATION} if PROBABILITIES in outputs else set(outputs)
        for output in sorted(written):
            self._finished.add(key, output, self._signature(key, output), self._files(key, output))

    def _signature(self, key: str, output: str) -> str:
        trainer = self._trainer
        data = [Path(trainer.preprocessed_dataset_folder, f"{key}{ending}") for ending in _SOURCE_ENDINGS]
        previous = trainer.folder_with_segs_from_previous_stage
        before = [] if previous is None else [Path(previous, f"{key}{ending}") for ending in _SOURCE_ENDINGS]
        shape = self._next_stages[output].shape_of(key) if output in self._next_stages else None
        return case_signature(self._settings, data, before, shape)

    def _files(self, key: str, output: str) -> list[Path]:
        if output == SEGMENTATION:
            return [self.folder / f"{key}{self._ending}"]
        if output == PROBABILITIES:
            return [self.folder / f"{key}.npz", self.folder / f"{key}.pkl"]
        is_numpy = issubclass(self._next_stages[output].dataset_class, nnUNetDatasetNumpy)
        return [self._next_stage_folder(output) / f"{key}{'.npz' if is_numpy else '.b2nd'}"]

    def _next_stage_folder(self, name: str) -> Path:
        return Path(self._trainer.output_folder_base, NEXT_STAGE_FOLDER, name)

    def _find_next_stages(self) -> dict[str, NextStage]:
        """The cascade stages fed by this one that are preprocessed."""
        trainer, stages = self._trainer, {}
        for name in trainer.configuration_manager.next_stage_names or ():
            try:
                identifier = trainer.plans_manager.get_configuration(name).data_identifier
                folder = os.path.join(trainer.preprocessed_dataset_folder_base, identifier)
                dataset_class = infer_dataset_class(folder)
            except nnUNetError as error:  # this stage's own results must not be lost for that
                self._say(f"Nothing predicted for {name}: {error}; --val then makes what is missing")
                continue
            stages[name] = NextStage(folder, dataset_class, frozenset(dataset_class.get_identifiers(folder)))
        return stages


def export_outputs(
    logits: Any, properties: Mapping[str, Any], documents: ModelDocuments, export: CaseExport, _: bool = False
) -> None:
    """Write a case's outputs, each file complete or not at all; task of a worker.

    Args:
        logits: (heads, z, y, x), or a `.npy` file of them, which stays: another process may have to do it again. Or
            what was made of them, then next stages are written already.
        properties: of the case.
    """
    if isinstance(logits, ReducedPrediction):
        if export.segmentation or export.probabilities:
            logits.finish(properties, documents, export.stem)
        return
    logits = load_mapped(logits)
    plans_manager = PlansManager(documents.plans)
    configuration, dataset_json = documents.configuration, documents.dataset_json
    if export.segmentation or export.probabilities:
        export_prediction_from_logits(
            logits, properties, configuration, plans_manager, dataset_json, export.stem, export.probabilities
        )
    for file, shape, dataset_class in export.next_stages:
        managers = (plans_manager, configuration)
        resample_and_save(logits, shape, file, *managers, dict(properties), dataset_json, None, dataset_class)
