"""Classes of a user of nnU-Net v2, written against upstream; a test replaces nnunetv2 by nnunet_lite and uses them."""

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager


class MyPlanner(ExperimentPlanner):
    """Two millimetres, everything of one's own, and a patch that is halved along its first axis."""

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "MyPreprocessor",
        plans_name: str = "myPlans",
        overwrite_target_spacing: list[float] | None = None,
        suppress_transpose: bool = False,
    ):
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.UNet_base_num_features = 8
        self.UNet_min_batch_size = 3

    def determine_fullres_target_spacing(self) -> np.ndarray:
        return np.array([2.0, 2.0, 2.0])

    def determine_reader_writer(self):
        assert self.dataset[next(iter(self.dataset))]["images"][0].endswith("_0000.nii.gz")
        return MyReader

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self):
        return ["MyNormalization"] * len(self.dataset_json["channel_names"]), [True]

    def determine_resampling(self, *args, **kwargs):
        return "my_resampling", {"order": 1}, "resample_data_or_seg_to_shape", {"is_seg": True, "order": 1}

    def get_plans_for_configuration(self, spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache):
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        patch_size = np.array(plan["patch_size"])
        patch_size[0] = patch_size[0] // 2
        _, _, _, patch_size, _ = get_pool_and_conv_props(
            spacing, patch_size, self.UNet_featuremap_min_edge_length, 999999
        )
        estimate = self.static_estimate_VRAM_usage(
            patch_size,
            len(self.dataset_json["channel_names"]),
            len(self.dataset_json["labels"]),
            plan["architecture"]["network_class_name"],
            plan["architecture"]["arch_kwargs"],
            plan["architecture"]["_kw_requires_import"],
        )
        assert estimate > 0
        plan["patch_size"] = np.array(patch_size)
        return plan

    def plan_experiment(self):
        plans = super().plan_experiment()
        plans["label_manager"] = "MyLabelManager"
        self.save_plans(plans)
        return plans


class MyLargePlanner(nnUNetPlannerResEncL):
    """A preset under another name."""

    def __init__(self, *args, plans_name: str = "myLargePlans", **kwargs):
        super().__init__(*args, plans_name=plans_name, **kwargs)


class MyReader(SimpleITKIO):
    """Reads as its parent does."""


class MyLabelManager(LabelManager):
    """Labels as its parent's."""


class MyNormalization(ImageNormalization):
    """Adds 1000, so that a test can see it."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return image.astype(np.float32) + 1000


def my_resampling(data, new_shape, current_spacing, new_spacing, order=3):
    """Resamples as usual and adds 10000."""
    return resample_data_or_seg_to_shape(data, new_shape, current_spacing, new_spacing, is_seg=False, order=order) + 1e4


class MyPreprocessor(DefaultPreprocessor):
    """Changes the image before and the labels after what its parent does."""

    def run_case_npy(self, data, seg, properties, plans_manager, configuration_manager, dataset_json):
        return super().run_case_npy(data + 100000, seg, properties, plans_manager, configuration_manager, dataset_json)

    def modify_seg_fn(self, seg, plans_manager, dataset_json, configuration_manager):
        seg[seg == 2] = 1
        return seg


class MyExtractor(DatasetFingerprintExtractor):
    """Adds a key."""

    def run(self, overwrite_existing: bool = False) -> dict:
        from nnunetv2.paths import nnUNet_preprocessed
        from nnunetv2.utilities.json_export import load_json, save_json

        super().run(overwrite_existing)
        file = f"{nnUNet_preprocessed}/{self.dataset_name}/dataset_fingerprint.json"
        fingerprint = {**load_json(file), "mine": 1}
        save_json(fingerprint, file)
        return fingerprint
