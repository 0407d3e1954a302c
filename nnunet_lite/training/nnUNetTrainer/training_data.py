"""The trainer's hooks around data: split, datasets, augmentation, batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from nnunet_lite.configuration import num_processes_data_augmentation
from nnunet_lite.exceptions import WorkerError, nnUNetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunet_lite.training import splits
from nnunet_lite.training.augmentation_device import augmentation_device
from nnunet_lite.training.batch_distribution import BatchShare, gather_shares, share_of_batch
from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.case_check import other_plans
from nnunet_lite.training.cpu_speed import channels_last
from nnunet_lite.training.data_augmentation import pipelines
from nnunet_lite.training.data_augmentation.augmentation_geometry import AugmentationGeometry, configure_augmentation
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms
from nnunet_lite.training.data_loader import nnUNetDataLoader
from nnunet_lite.training.debug_information import introduction
from nnunet_lite.training.interruption import StopRequest
from nnunet_lite.training.logging.epoch_speed import EpochSpeed, speed_report
from nnunet_lite.training.logging.log_file import append_line
from nnunet_lite.training.logging.loggers import MetaLogger
from nnunet_lite.training.loss import deep_supervision
from nnunet_lite.training.online_evaluation import StepOutput
from nnunet_lite.training.previous_stage import require_previous_stage
from nnunet_lite.training.prompt_batches import PromptBatchIterator
from nnunet_lite.training.trainer_state import stream_seed
from nnunet_lite.utilities.distributed import all_gather_objects, world_size
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import describe


class TrainingData:
    """Part of nnUNetTrainer; the attributes are filled by its constructor."""

    oversample_foreground_percent: float = 0.33
    probabilistic_oversampling: bool = False
    num_iterations_per_epoch: int = 250
    num_val_iterations_per_epoch: int = 50
    enable_deep_supervision: bool = True
    seed: int | None = None
    channels_last: bool | None = None  # None: where measured faster, which is on a CPU
    batch_share: BatchShare | None = None  # filled by initialize; a user's own may not
    previous_stage_trainer: str | None = None
    _split_known: bool = False  # to the user
    augmentation_device: str = "auto"

    batch_size: int
    is_ddp: bool
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    configuration_name: str
    dataloader_train: Any
    dataloader_val: Any
    label_manager: LabelManager
    fold: int | str
    device: torch.device
    local_rank: int
    log_file: str
    is_cascaded: bool
    current_epoch: int
    epoch_outputs: list[StepOutput]
    dataset_class: Any
    dataset_json: dict[str, Any]
    preprocessed_dataset_folder: str
    preprocessed_dataset_folder_base: str
    folder_with_segs_from_previous_stage: str | None
    inference_allowed_mirroring_axes: tuple[int, ...] | None
    logger: MetaLogger
    _speed: EpochSpeed
    _stop: StopRequest

    def print_to_log_file(self, *args: object, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Append a line to the training log and show it."""
        append_line(
            self.log_file,
            args,
            add_timestamp=add_timestamp,
            to_console=also_print_to_console,
            to_file=self.local_rank == 0,
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        return deep_supervision.deep_supervision_scales(self.configuration_manager.pool_op_kernel_sizes)

    def _augmentation_geometry(self) -> AugmentationGeometry:
        """What the patch size decides."""
        return configure_augmentation(self.configuration_manager.patch_size)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[Any, bool, Sequence[int], tuple[int, ...] | None]:
        """Rotation range, whether to augment slices of a 3D patch, enlarged patch size, mirror axes."""
        geometry = self._augmentation_geometry()
        self.print_to_log_file("do_dummy_2d_data_aug:", geometry.do_dummy_2d_data_aug, also_print_to_console=False)
        self.inference_allowed_mirroring_axes = geometry.mirror_axes
        rotation, dummy_2d, initial_patch_size, mirror_axes = geometry
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    @staticmethod
    def get_training_transforms(
        patch_size: Sequence[int],
        rotation_for_DA: Any,
        deep_supervision_scales: Sequence[Sequence[float]] | None,
        mirror_axes: Sequence[int] | None,
        do_dummy_2d_data_aug: bool,
        use_mask_for_norm: Sequence[bool] | None = None,
        is_cascaded: bool = False,
        foreground_labels: Sequence[int] | None = None,
        regions: Sequence[Any] | None = None,
        ignore_label: int | None = None,
    ) -> Any:
        """A pipeline of ours, or any callable of image= and segmentation= that returns a dict of them."""
        return pipelines.get_training_transforms(
            patch_size,
            rotation_for_DA,
            deep_supervision_scales,
            mirror_axes,
            do_dummy_2d_data_aug,
            use_mask_for_norm,
            is_cascaded,
            foreground_labels,
            regions,
            ignore_label,
        )

    @staticmethod
    def get_validation_transforms(
        deep_supervision_scales: Sequence[Sequence[float]] | None,
        is_cascaded: bool = False,
        foreground_labels: Sequence[int] | None = None,
        regions: Sequence[Any] | None = None,
        ignore_label: int | None = None,
    ) -> Any:
        """Like the training transforms, without augmentation."""
        return pipelines.get_validation_transforms(
            deep_supervision_scales, is_cascaded, foreground_labels, regions, ignore_label
        )

    def do_split(self) -> tuple[list[str], list[str]]:
        """Training and validation cases."""
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        identifiers = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        file = self._splits_file()
        expected = self.dataset_json.get("numTraining")
        if isinstance(expected, int) and len(identifiers) < expected and not os.path.exists(file):
            logger.warning(
                "%d cases are preprocessed, dataset.json speaks of %d; if preprocessing was interrupted, finish it and "
                "delete %s, which is made of those that are there",
                *(len(identifiers), expected, file),
            )
        known, self._split_known = self._split_known, True
        return splits.do_split(self.fold, identifiers, file, quiet=known)

    def _splits_file(self) -> str:
        return os.path.join(self.preprocessed_dataset_folder_base, splits.SPLITS_FILE)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Datasets of the training and the validation cases, which are looked at once."""
        previous = self.folder_with_segs_from_previous_stage
        keys = self.do_split()
        splits.require_validation_cases(keys[1], self.fold, self._splits_file())
        datasets = [self.dataset_class(self.preprocessed_dataset_folder, cases, previous) for cases in keys]
        with self._speed.watch.waiting(lambda: f"a look at every case of {self.preprocessed_dataset_folder}"):
            for dataset in datasets:
                if isinstance(dataset, nnUNetBaseDataset):  # a user's may be of another kind
                    dataset.require_complete()
            warning = other_plans(datasets[0], self.plans_manager, self.configuration_manager)
        if warning is not None:
            logger.warning(warning)
        require_previous_stage(self, keys[0] + keys[1])
        return datasets[0], datasets[1]

    def get_sampling_probabilities(self, identifiers: Sequence[str]) -> Sequence[float] | None:
        """How likely each training case is drawn, adding up to 1; None for all alike."""
        return None

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Iterators over training and validation batches: dicts of data, target and keys."""
        dataset_tr, dataset_val = self.get_tr_and_val_datasets()  # first: nothing is logged yet if they are unusable
        patch_size = self.configuration_manager.patch_size
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        scales = self._get_deep_supervision_scales()
        labels: dict[str, Any] = {
            "is_cascaded": self.is_cascaded,
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": self.label_manager.foreground_regions if self.label_manager.has_regions else None,
            "ignore_label": self.label_manager.ignore_label,
        }
        use_mask = self.configuration_manager.use_mask_for_norm
        training = self.get_training_transforms(
            patch_size, rotation, scales, mirror_axes, dummy_2d, use_mask_for_norm=use_mask, **labels
        )
        validation = self.get_validation_transforms(scales, **labels)
        workers = num_processes_data_augmentation()
        return (
            self._batches(dataset_tr, initial_patch_size, training, 0, workers),
            self._batches(dataset_val, patch_size, validation, 1, workers // 2 or min(workers, 1)),
        )

    def _batches(self, dataset: Any, patch_size: Sequence[int], transforms: Any, stream: int, workers: int) -> Any:
        """Batches of one stream (0 training, 1 validation) from where this training stands."""
        self.batch_share = share = self.batch_share or gather_shares(self.batch_size)
        loader = nnUNetDataLoader(
            dataset, self.batch_size, patch_size, self.configuration_manager.patch_size, self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            sampling_probabilities=None if stream else self.get_sampling_probabilities(dataset.identifiers),
            transforms=transforms,
            probabilistic_oversampling=self.probabilistic_oversampling,
            seed=stream_seed(self.seed or 0, 0, stream),
            part_of=(share.first, share.whole),
        )  # fmt: skip
        kind = BatchIterator if stream else PromptBatchIterator
        return kind(
            loader,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            start=(self.current_epoch, len(self.epoch_outputs) if stream == 0 else 0),
            batches_per_epoch=self.num_val_iterations_per_epoch if stream else self.num_iterations_per_epoch,
            device=augmentation_device(self.augmentation_device, self.device, transforms),
            stop=lambda: self._stop.received is not None,
        )

    def _check_augmentation_device(self) -> None:
        """Refuse a wrong nnUNet_DA_device before anything is written; transforms are looked at when there are any."""
        augmentation_device(self.augmentation_device, self.device, ComposeTransforms([]))

    def _set_batch_size_and_oversample(self) -> None:
        self.batch_size = self.configuration_manager.batch_size
        if self.is_ddp:
            self.batch_size, self.oversample_foreground_percent = share_of_batch(
                self.batch_size, world_size(), self.local_rank, self.oversample_foreground_percent
            )

    @property
    def uses_channels_last(self) -> bool:
        """Whether images and weights lie in memory with the channels innermost.

        On a GPU it is left to the trainer's attribute: instance normalization copies such images back and forth there.
        """
        return self.device.type == "cpu" if self.channels_last is None else self.channels_last

    def _on_device(self, batch: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        data, target = batch["data"].to(self.device, non_blocking=True), batch["target"]
        data = channels_last(data) if self.uses_channels_last else data
        if isinstance(target, list):
            return data, [level.to(self.device, non_blocking=True) for level in target]
        return data, target.to(self.device, non_blocking=True)

    def _draw(self, loader: Any) -> Any:
        """The next batch, watched over; a loader of the user's may raise anything."""
        try:
            for one in (self.dataloader_train, self.dataloader_val):
                if isinstance(one, BatchIterator):
                    one.check_workers()  # a dead one is not waited for until its turn comes
            with self._speed.draw(loader, loader is self.dataloader_train, self.print_to_log_file):
                return next(loader)
        except nnUNetError:
            raise
        except Exception as error:
            raise WorkerError(f"{type(loader).__name__} gave no batch: {describe(error)}") from error

    def _speed_of_epoch(self) -> list[str]:
        """Log how fast the epoch was; the lines to be shown."""
        speed = self._speed.finish(self.device)
        memory = sum(all_gather_objects(speed.get("memory", 0.0)))
        if speed:
            speed["memory"] = memory
        self.logger.log_speed(speed, self.current_epoch)
        advice = self._speed.advice(speed, self.device, self.dataloader_train)
        return speed_report(speed) + ([] if advice is None else [advice])

    def _close_dataloaders(self) -> None:
        for loader in (self.dataloader_train, self.dataloader_val):
            close = getattr(loader, "close", None) or getattr(loader, "_finish", None)
            if close is not None:
                close()

    def print_plans(self) -> None:
        """Log what is trained and where to, the configuration, and the plans without their configurations."""
        if self.local_rank == 0:
            for line in introduction(self):
                self.print_to_log_file(line)
            plans = {key: value for key, value in self.plans_manager.plans.items() if key != "configurations"}
            configuration = self.configuration_manager.configuration
            for title, values in ((f"Configuration {self.configuration_name}", configuration), ("Plans", plans)):
                self.print_to_log_file(f"{title}:\n", values, "\n", also_print_to_console=False, add_timestamp=False)
