"""A trainer as written for upstream, after `sed s/nnunetv2/nnunet_lite/`: it builds its loaders itself."""

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunet_lite.training.dataloading.data_loader import nnUNetDataLoader
from nnunet_lite.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class OwnLoadersTrainer(nnUNetTrainer):
    """Two iterations; the first case is twice as likely as the others."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = 2
        self.num_val_iterations_per_epoch = 1

    def get_dataloaders(self):
        """As upstream's, with sampling probabilities."""
        patch_size = self.configuration_manager.patch_size
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        tr_transforms = self.get_training_transforms(
            patch_size,
            rotation,
            scales,
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
            is_cascaded=self.is_cascaded,
            foreground_labels=self.label_manager.foreground_labels,
            regions=self.label_manager.foreground_regions if self.label_manager.has_regions else None,
            ignore_label=self.label_manager.ignore_label,
        )
        val_transforms = self.get_validation_transforms(scales, foreground_labels=self.label_manager.foreground_labels)
        dataset_tr, dataset_val = self.get_tr_and_val_datasets()
        weights = [2.0] + [1.0] * (len(dataset_tr.identifiers) - 1)
        dl_tr = nnUNetDataLoader(
            dataset_tr,
            self.batch_size,
            initial_patch_size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            sampling_probabilities=[weight / sum(weights) for weight in weights],
            pad_sides=None,
            transforms=tr_transforms,
            probabilistic_oversampling=self.probabilistic_oversampling,
        )
        dl_val = nnUNetDataLoader(
            dataset_val,
            self.batch_size,
            self.configuration_manager.patch_size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            sampling_probabilities=None,
            pad_sides=None,
            transforms=val_transforms,
            probabilistic_oversampling=self.probabilistic_oversampling,
        )
        processes = get_allowed_n_proc_DA()
        if processes == 0:
            mt_train = SingleThreadedAugmenter(dl_tr, None)
            mt_val = SingleThreadedAugmenter(dl_val, None)
        else:
            options = {"seeds": None, "pin_memory": self.device.type == "cuda", "wait_time": 0.002}
            mt_train = NonDetMultiThreadedAugmenter(
                data_loader=dl_tr, transform=None, num_processes=processes, num_cached=max(6, processes // 2), **options
            )
            mt_val = NonDetMultiThreadedAugmenter(
                data_loader=dl_val,
                transform=None,
                num_processes=max(1, processes // 2),
                num_cached=max(3, processes // 4),
                **options,
            )
        _ = next(mt_train)
        _ = next(mt_val)
        return mt_train, mt_val
