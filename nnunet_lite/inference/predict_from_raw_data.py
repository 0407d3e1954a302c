"""nnUNetPredictor: a trained model as a function of images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nnunet_lite.configuration import compile_requested, num_compute_threads, num_processes_default
from nnunet_lite.exceptions import ArgumentError, NumericalError
from nnunet_lite.inference.case_resources import Network
from nnunet_lite.inference.data_iterators import CaseToPredict, preprocess_case, preprocessed_cases
from nnunet_lite.inference.device_memory import DeviceMemory, Weights
from nnunet_lite.inference.export_prediction import load_as_tensor
from nnunet_lite.inference.export_queue import export_case
from nnunet_lite.inference.further_labels import FurtherLabels
from nnunet_lite.inference.logit_prediction import Ensemble, Progress
from nnunet_lite.inference.model_in_use import ModelInUse
from nnunet_lite.inference.prediction_cases import Output, Source, array_cases
from nnunet_lite.inference.prediction_pipeline import Item, PipelineSettings, PredictionPipeline, resources_of
from nnunet_lite.inference.prediction_request import ModelOrigin, requested_cases
from nnunet_lite.inference.reduced_prediction import CaseReduction, ReducedPrediction
from nnunet_lite.inference.replaced_steps import (
    LOGITS,
    SLIDING_WINDOW,
    SeveralPasses,
    checked,
    mean_over_members,
    replaces,
)
from nnunet_lite.inference.test_time_augmentation import mirror_combinations
from nnunet_lite.models.model_documents import require_predictable
from nnunet_lite.models.model_names import Fold
from nnunet_lite.models.trained_model import TrainedModel
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.device import can_compile, empty_cache, num_threads, require_device, resolve_precision
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.parallel import WorkerPool
from nnunet_lite.utilities.turns import Turns


class nnUNetPredictor(ModelInUse):
    """Predicts images with a trained model (nnU-Net v2 2.8.1 methods, arguments and return values).

    Several threads may use one predictor; its network works on one image at a time.

    Args:
        tile_step_size: longest step between tiles as a part of the patch, in (0, 1].
        use_gaussian: weight the middle of a tile more than its rim.
        use_mirroring: average over mirrored copies, along the axes that the training allowed.
        perform_everything_on_device: keep image and sums on the device too; what does not fit goes to main memory.
        device: where the network computes.
        verbose: log what is done to each case.
        verbose_preprocessing: the preprocessor logs as well.
        allow_tqdm: show progress bars.
        precision: float32, bf16, fp16; auto is fp16 on CUDA and float32 elsewhere.
        dtype_of_sums: what weighted sums over tiles are rounded to. Half precision, as upstream's, decides near-ties
            as upstream does and takes half the memory; sums cannot overflow, whatever the logits.
        max_ram: bytes that the prediction of files may take in all its processes (default: 80 % of what is free). With
            a low limit large images are predicted in bands, with the same result.
    """

    def __init__(
        self,
        tile_step_size: float = 0.5,
        use_gaussian: bool = True,
        use_mirroring: bool = True,
        perform_everything_on_device: bool = True,
        device: torch.device | str = "cuda",
        verbose: bool = False,
        verbose_preprocessing: bool = False,
        allow_tqdm: bool = True,
        *,
        precision: str = "auto",
        dtype_of_sums: torch.dtype = torch.float16,
        max_ram: int | None = None,
    ) -> None:
        if not 0 < tile_step_size <= 1:
            raise ArgumentError(f"tile step size {tile_step_size}: expected a part of the patch, above 0, at most 1")
        self.tile_step_size = tile_step_size
        self.use_gaussian = use_gaussian
        self.use_mirroring = use_mirroring
        self.device = torch.device(device)
        self.perform_everything_on_device = perform_everything_on_device and self.device.type == "cuda"
        self.verbose = verbose
        self.verbose_preprocessing = verbose_preprocessing
        self.allow_tqdm = allow_tqdm
        self.autocast_dtype = resolve_precision(precision, self.device, training=False)
        self.dtype_of_sums = dtype_of_sums
        self.max_ram = max_ram
        self.list_of_parameters: list[Weights] | None = None
        self.trainer_name: str | None = None
        self.allowed_mirroring_axes: tuple[int, ...] | None = None
        self._origin: ModelOrigin | None = None
        self._loaded = None
        self._turns = Turns()
        self._memory = DeviceMemory()
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: PathLike,
        use_folds: Fold | Sequence[Fold] | None = None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Load a model folder.

        Args:
            model_training_output_dir: Trainer__Plans__Configuration, or a folder of any name with its content.
            use_folds: one fold or several (numbers or `all`); None uses all there are.
            checkpoint_name: file in each fold's folder.

        Raises:
            PathError, CheckpointError, PlansError: what is missing, and what is there instead.
            ArgumentError: this machine lacks the device.
        """
        require_device(torch.device(self.device))
        model = TrainedModel(model_training_output_dir)
        members = model.load_members(use_folds, checkpoint_name)
        first = members[0]
        configuration = model.plans_manager.get_configuration(first.configuration)
        require_predictable(model.plans_manager, configuration, model.dataset_json)
        network = model.load_network(members)
        self.manual_initialization(
            network,
            model.plans_manager,
            configuration,
            [member.weights for member in members],
            model.dataset_json,
            first.trainer_name,
            first.mirroring_axes,
        )
        self._origin = ModelOrigin(model_training_output_dir, [member.fold for member in members], checkpoint_name)

    @staticmethod
    def auto_detect_available_folds(
        model_training_output_dir: PathLike, checkpoint_name: str = "checkpoint_final.pth"
    ) -> list[Fold]:
        """Folds of a model folder that have this checkpoint."""
        return TrainedModel(model_training_output_dir).available_folds(checkpoint_name)

    def manual_initialization(
        self,
        network: nn.Module,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        parameters: list[Mapping[str, Any]] | None,
        dataset_json: dict[str, Any],
        trainer_name: str,
        inference_allowed_mirroring_axes: tuple[int, ...] | None,
    ) -> None:
        """Use a network that exists (the trainer's final validation does).

        Args:
            network: without deep supervision.
            parameters: weights of each member of an ensemble, or None to use the network as it is.
            inference_allowed_mirroring_axes: spatial axes, or None.

        Raises:
            ArgumentError: this machine lacks the device.
        """
        require_device(torch.device(self.device))
        self._origin = None
        self.plans_manager = plans_manager
        self.configuration_manager = configuration_manager
        self.dataset_json = dataset_json
        self.label_manager = plans_manager.get_label_manager(dataset_json)
        self.list_of_parameters = parameters
        self.trainer_name = trainer_name
        self.allowed_mirroring_axes = inference_allowed_mirroring_axes
        self._loaded = None
        self._memory = DeviceMemory()
        self.network = network
        if compile_requested(False) and not hasattr(network, "_orig_mod") and can_compile(torch.device(self.device)):
            self.network = cast("nn.Module", torch.compile(network))

    def predict_from_files(
        self,
        list_of_lists_or_source_folder: Source,
        output_folder_or_list_of_truncated_output_files: Output,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int | None = None,
        num_processes_segmentation_export: int | None = None,
        folder_with_segs_from_prev_stage: PathLike | None = None,
        num_parts: int = 1,
        part_id: int = 0,
    ) -> list[Any] | None:
        """Predict image files.

        Args:
            list_of_lists_or_source_folder: folder of images, list with the files of each case, or one image file.
            output_folder_or_list_of_truncated_output_files: folder, one path without file ending per case, the file
                to write for a single case, or None to return results.
            save_probabilities: also write (or return) probabilities.
            overwrite: False skips cases whose outputs exist and are intact.
            num_processes_preprocessing, num_processes_segmentation_export: background processes; 0 does it here.
                Fewer are used where starting one takes longer than the work.
            folder_with_segs_from_prev_stage: for the second stage of a cascade.
            num_parts, part_id: predict only every num_parts-th case, beginning with number part_id.

        Returns:
            In input order, None for each file written, or labels, or (labels, probabilities); None if there was
            nothing to do.

        Raises:
            nnUNetError: for cases that failed, after all others were predicted; names each with its reason.
        """
        requested = (num_processes_preprocessing, num_processes_segmentation_export)
        npp, nps = (num_processes_default() if number is None else number for number in requested)
        arguments: dict[str, Any] = {
            "list_of_lists_or_source_folder": list_of_lists_or_source_folder,
            "output_folder_or_list_of_truncated_output_files": output_folder_or_list_of_truncated_output_files,
            "save_probabilities": save_probabilities,
            "overwrite": overwrite,
            "num_processes_preprocessing": npp,
            "num_processes_segmentation_export": nps,
            "folder_with_segs_from_prev_stage": folder_with_segs_from_prev_stage,
            "num_parts": num_parts,
            "part_id": part_id,
        }
        if self._origin is not None:
            arguments |= self._origin.record(self.use_mirroring, self.tile_step_size, self.autocast_dtype)
        documents = self._documents()
        documents.configuration.require_classes()
        cases, done = requested_cases(arguments, documents)
        return self._predict_cases(cases, save_probabilities, npp, nps, done) if cases else None

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: Source,
        output_folder_or_list_of_truncated_output_files: Output,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: PathLike | None = None,
    ) -> list[Any]:
        """`predict_from_files` in this process alone; returns an empty list when files are written."""
        results = self.predict_from_files(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            save_probabilities,
            overwrite,
            0,
            0,
            folder_with_segs_from_prev_stage,
        )
        return (results or []) if output_folder_or_list_of_truncated_output_files is None else []

    def predict_from_list_of_npy_arrays(
        self,
        image_or_list_of_images: NDArray[Any] | Sequence[NDArray[Any]],
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: NDArray[Any] | Sequence[NDArray[Any] | None] | None,
        properties_or_list_of_properties: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        truncated_ofname: str | Sequence[str] | None,
        num_processes: int = 3,
        save_probabilities: bool = False,
        num_processes_segmentation_export: int | None = None,
    ) -> list[Any]:
        """Predict arrays as the model's reader gives them; arguments and results as in `predict_from_files`.

        Args:
            image_or_list_of_images: (c, d0, d1, d2) each.
            segs_from_prev_stage_or_list_of_segs_from_prev_stage: (1, d0, d1, d2) each, or None.
            properties_or_list_of_properties: must have `spacing`, and what the writer needs for files; not changed.
            truncated_ofname: output paths without file ending, or None to return results.
        """
        cases = array_cases(
            image_or_list_of_images,
            segs_from_prev_stage_or_list_of_segs_from_prev_stage,
            properties_or_list_of_properties,
            truncated_ofname,
        )
        nps = num_processes_segmentation_export
        return self._predict_cases(
            cases, save_probabilities, num_processes, num_processes_default() if nps is None else nps
        )

    def get_data_iterator_from_raw_npy_data(
        self,
        image_or_list_of_images: NDArray[Any] | Sequence[NDArray[Any]],
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: NDArray[Any] | Sequence[NDArray[Any] | None] | None,
        properties_or_list_of_properties: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        truncated_ofname: str | Sequence[str] | None,
        num_processes: int = 3,
    ) -> Iterator[dict[str, Any]]:
        """Preprocessed cases for `predict_from_data_iterator`, made in the background; raises what went wrong."""
        cases = array_cases(
            image_or_list_of_images,
            segs_from_prev_stage_or_list_of_segs_from_prev_stage,
            properties_or_list_of_properties,
            truncated_ofname,
        )
        documents = self._documents()
        demands = resources_of(cases, documents, self.network_size())[1]
        with WorkerPool(min(num_processes, len(cases)), max_ram=self.max_ram) as pool:
            for _, item in preprocessed_cases(cases, demands, documents, pool):
                if isinstance(item, Exception):
                    raise item
                yield {**item, "data": load_as_tensor(item["data"])}

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[Mapping[str, Any]],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int | None = None,
    ) -> list[Any]:
        """Predict preprocessed cases.

        Args:
            data_iterator: dicts with `data` (c, x, y, z) or a `.npy` file of it (deleted), `data_properties`, `ofile`
                (path without file ending, or None).
        """
        stream = (
            (Path(item["ofile"]).name if item.get("ofile") else f"case {number}", item)
            for number, item in enumerate(data_iterator)
        )
        nps = num_processes_segmentation_export
        nps = num_processes_default() if nps is None else nps
        results = self._pipeline(save_probabilities, 0, nps).run_stream(stream)
        empty_cache(torch.device(self.device))
        return results

    def predict_single_npy_array(
        self,
        input_image: NDArray[Any],
        image_properties: Mapping[str, Any],
        segmentation_previous_stage: NDArray[Any] | None = None,
        output_file_truncated: str | None = None,
        save_or_return_probabilities: bool = False,
    ) -> Any:
        """Predict one array (c, d0, d1, d2) in this process; labels, or (labels, probabilities), or None if written."""
        case = CaseToPredict("image", input_image, segmentation_previous_stage, image_properties, output_file_truncated)
        item = preprocess_case(case, self._documents(), self.verbose_preprocessing)
        logits = self.predict_item(case.name, item, None, save_or_return_probabilities)
        with num_threads(num_compute_threads()):
            return export_case(
                logits, item["data_properties"], self._documents(), output_file_truncated, save_or_return_probabilities
            )

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Logits (heads, x, y, z) of a preprocessed image (c, x, y, z): the mean over all members of the ensemble.

        In half precision on the CPU.
        """
        with self._turns:
            if replaces(self, nnUNetPredictor, SLIDING_WINDOW):
                return mean_over_members(self.predict_sliding_window_return_logits, data, self._members(), self._load)
            return self._predict(data, self._members())

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """As `predict_logits_from_preprocessed_data`, with the weights that the network has now."""
        with self._turns:
            self._loaded = None  # they may be the caller's own
            return self._predict(input_image, (None,))

    def _predict_cases(
        self, cases: Sequence[CaseToPredict], save_probabilities: bool, npp: int, nps: int, done_before: int = 0
    ) -> list[Any]:
        self._documents().configuration.require_classes()
        results = self._pipeline(save_probabilities, npp, nps).run(cases, done_before)
        empty_cache(torch.device(self.device))
        return results

    def _pipeline(self, save_probabilities: bool, npp: int, nps: int) -> PredictionPipeline:
        documents = self._documents()
        copies = len(mirror_combinations(self._mirroring_axes()))
        shown = (self.allow_tqdm, self.verbose, self.verbose_preprocessing)
        settings = PipelineSettings(save_probabilities, npp, nps, self.max_ram, self.tile_step_size, copies, *shown)
        predict = partial(self.predict_item, probabilities=save_probabilities)
        return PredictionPipeline(documents, self.network_size(), predict, settings)

    def network_size(self) -> Network:
        """What decides how much memory a case's logits take; steps of somebody's own hold those of the whole image."""
        size = super().network_size()
        return size._replace(most_sums=sys.maxsize) if self._has_own_steps() else size

    def _has_own_steps(self) -> bool:
        return replaces(self, nnUNetPredictor, LOGITS, SLIDING_WINDOW)

    def predict_item(
        self,
        name: str,
        item: Item,
        progress: Progress | None = None,
        probabilities: bool = False,
        further: Sequence[FurtherLabels] = (),
    ) -> Tensor | ReducedPrediction:
        """Logits of a preprocessed case; if they would be large, what is made of them, and `further` is filled."""
        case = CaseReduction(
            name, item["data_properties"], self._documents(), item.get("ofile"), probabilities, further
        )
        data, members = load_as_tensor(item["data"]), self._members()
        try:
            with self._turns, torch.inference_mode():
                if self._has_own_steps():
                    return self._own_logits(data, progress)
                ensemble = Ensemble(self.network, self._settings(), members, self._load, progress)
                reduced = case.predict(ensemble, data)
                return self._predict(data, members, progress) if reduced is None else reduced
        except NumericalError as error:
            raise NumericalError(f"{name}: {error}") from error

    def _own_logits(self, data: Tensor, progress: Progress | None) -> Tensor:
        self._progress = None if progress is None else SeveralPasses(progress, len(self._members()))
        try:
            logits = self.predict_logits_from_preprocessed_data(data)
        finally:
            self._progress = None
        return checked(logits, data, self.label_manager.num_segmentation_heads)
