"""Imports of upstream's module paths, after `sed s/nnunetv2/nnunet_lite/`."""

from __future__ import annotations

import importlib

import pytest

from nnunet_lite.compat import MOVED

IMPORTS = [
    ("paths", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]),
    ("configuration", ["ANISO_THRESHOLD", "default_num_processes"]),
    ("utilities.plans_handling.plans_handler", ["PlansManager", "ConfigurationManager"]),
    ("utilities.label_handling.label_handling", ["LabelManager", "determine_num_input_channels"]),
    ("utilities.label_handling.label_handling", ["convert_labelmap_to_one_hot", "get_labelmanager_class_from_plans"]),
    ("utilities.find_class_by_name", ["recursive_find_python_class"]),
    ("utilities.json_export", ["recursive_fix_for_json_export"]),
    ("utilities.utils", ["create_lists_from_splitted_dataset_folder", "get_identifiers_from_splitted_dataset_folder"]),
    ("inference.data_iterators", ["preprocessing_iterator_fromfiles", "preprocessing_iterator_fromnpy"]),
    ("inference.export_prediction", ["convert_predicted_logits_to_segmentation_with_correct_shape"]),
    ("utilities.dataset_name_id_conversion", ["maybe_convert_to_dataset_name"]),
    ("utilities.utils", ["get_filenames_of_train_images_and_targets"]),
    ("utilities.get_network_from_plans", ["get_network_from_plans"]),
    ("utilities.file_path_utilities", ["get_output_folder"]),
    ("preprocessing.preprocessors.default_preprocessor", ["DefaultPreprocessor"]),
    ("preprocessing.cropping.cropping", ["crop_to_nonzero"]),
    ("preprocessing.normalization.default_normalization_schemes", ["ZScoreNormalization", "ImageNormalization"]),
    ("preprocessing.resampling.default_resampling", ["resample_data_or_seg_to_shape", "compute_new_shape"]),
    ("preprocessing.resampling.resample_torch", ["resample_torch_fornnunet"]),
    ("training.dataloading.nnunet_dataset", ["infer_dataset_class", "nnUNetDatasetBlosc2"]),
    ("training.dataloading.data_loader", ["nnUNetDataLoader"]),
    ("training.data_augmentation.compute_initial_patch_size", ["get_patch_size"]),
    ("utilities.helpers", ["softmax_helper_dim0", "softmax_helper_dim1", "empty_cache", "dummy_context"]),
    ("utilities.collate_outputs", ["collate_outputs"]),
    ("utilities.default_n_proc_DA", ["get_allowed_n_proc_DA"]),
    ("utilities.overlay_plots", ["generate_overlays_from_raw", "generate_overlay", "select_slice_to_plot2"]),
    ("dataset_conversion.generate_dataset_json", ["generate_dataset_json"]),
    ("dataset_conversion.convert_MSD_dataset", ["convert_msd_dataset", "split_4d_nifti"]),
    ("dataset_conversion.convert_raw_dataset_from_old_nnunet_format", ["convert"]),
    ("preprocessing.normalization.map_channel_name_to_normalization", ["channel_name_to_normalization_mapping"]),
    ("evaluation.find_best_configuration", ["find_best_configuration", "accumulate_cv_results"]),
    ("evaluation.accumulate_cv_results", ["accumulate_cv_results"]),
    ("run.run_training", ["run_training", "get_trainer_from_args"]),
    ("run.load_pretrained_weights", ["load_pretrained_weights"]),
    ("utilities.ddp_allgather", ["AllGatherGrad"]),
    ("utilities.crossval_split", ["generate_crossval_split"]),
    ("training.logging.nnunet_logger", ["MetaLogger", "LocalLogger"]),
    ("training.loss.compound_losses", ["DC_and_CE_loss", "DC_and_BCE_loss"]),
    ("training.loss.dice", ["MemoryEfficientSoftDiceLoss", "get_tp_fp_fn_tn"]),
    ("training.loss.deep_supervision", ["DeepSupervisionWrapper"]),
    ("training.loss.robust_ce_loss", ["RobustCrossEntropyLoss", "TopKLoss"]),
    ("training.lr_scheduler.polylr", ["PolyLRScheduler"]),
    ("training.nnUNetTrainer.nnUNetTrainer", ["nnUNetTrainer"]),
    ("inference.predict_from_raw_data", ["nnUNetPredictor"]),
    ("inference.export_prediction", ["export_prediction_from_logits", "resample_and_save"]),
    ("inference.sliding_window_prediction", ["compute_gaussian", "compute_steps_for_sliding_window"]),
    ("evaluation.evaluate_predictions", ["compute_metrics_on_folder"]),
    ("imageio.base_reader_writer", ["BaseReaderWriter"]),
    ("imageio.simpleitk_reader_writer", ["SimpleITKIO"]),
    ("imageio.nibabel_reader_writer", ["NibabelIO", "NibabelIOWithReorient"]),
    ("imageio.reader_writer_registry", ["determine_reader_writer_from_dataset_json"]),
    ("experiment_planning.experiment_planners.default_experiment_planner", ["ExperimentPlanner"]),
    (
        "experiment_planning.experiment_planners.network_topology",
        ["get_pool_and_conv_props", "get_shape_must_be_divisible_by", "pad_shape"],
    ),
    ("experiment_planning.experiment_planners.resencUNet_planner", ["ResEncUNetPlanner"]),
    (
        "experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners",
        ["ResEncUNetPlanner", "nnUNetPlannerResEncM", "nnUNetPlannerResEncL", "nnUNetPlannerResEncXL"],
    ),
    (
        "experiment_planning.experiment_planners.resampling.planners_no_resampling",
        ["nnUNetPlannerResEncL_noResampling"],
    ),
    (
        "experiment_planning.experiment_planners.resampling.resample_with_torch",
        ["nnUNetPlanner_torchres", "nnUNetPlannerResEncL_torchres", "nnUNetPlannerResEncL_torchres_sepz"],
    ),
    (
        "experiment_planning.plans_for_pretraining.move_plans_between_datasets",
        ["move_plans_between_datasets"],
    ),
    ("experiment_planning.dataset_fingerprint.fingerprint_extractor", ["DatasetFingerprintExtractor"]),
    *(
        (f"training.nnUNetTrainer.variants.{module}", names)
        for module, names in {
            "benchmarking.nnUNetTrainerBenchmark_5epochs": ["nnUNetTrainerBenchmark_5epochs"],
            "benchmarking.nnUNetTrainerBenchmark_5epochs_noDataLoading": [
                "nnUNetTrainerBenchmark_5epochs_noDataLoading"
            ],
            "data_augmentation.nnUNetTrainerDA5": ["nnUNetTrainerDA5", "nnUNetTrainerDA5ord0"],
            "data_augmentation.nnUNetTrainerDAOrd0": [
                "nnUNetTrainer_DASegOrd0",
                "nnUNetTrainer_onlyMirror01_DASegOrd0",
            ],
            "data_augmentation.nnUNetTrainerNoDA": ["nnUNetTrainerNoDA"],
            "data_augmentation.nnUNetTrainerNoMirroring": ["nnUNetTrainerNoMirroring", "nnUNetTrainer_onlyMirror01"],
            "data_augmentation.nnUNetTrainer_noDummy2DDA": ["nnUNetTrainer_noDummy2DDA"],
            "loss.nnUNetTrainerCELoss": ["nnUNetTrainerCELoss", "nnUNetTrainerCELoss_5epochs"],
            "loss.nnUNetTrainerDiceLoss": ["nnUNetTrainerDiceLoss", "nnUNetTrainerDiceCELoss_noSmooth"],
            "loss.nnUNetTrainerTopkLoss": ["nnUNetTrainerTopk10Loss", "nnUNetTrainerDiceTopK10Loss"],
            "lr_schedule.nnUNetTrainerCosAnneal": ["nnUNetTrainerCosAnneal"],
            "lr_schedule.nnUNetTrainer_warmup": ["nnUNetTrainer_warmup"],
            "network_architecture.nnUNetTrainerBN": ["nnUNetTrainerBN"],
            "network_architecture.nnUNetTrainerNoDeepSupervision": ["nnUNetTrainerNoDeepSupervision"],
            "optimizer.nnUNetTrainerAdam": ["nnUNetTrainerAdam", "nnUNetTrainerVanillaAdam3en4"],
            "optimizer.nnUNetTrainerAdan": ["nnUNetTrainerAdan", "nnUNetTrainerAdanCosAnneal"],
            "sampling.nnUNetTrainer_probabilisticOversampling": ["nnUNetTrainer_probabilisticOversampling_033"],
            "training_length.nnUNetTrainer_Xepochs": ["nnUNetTrainer_5epochs"],
            "training_length.nnUNetTrainer_Xepochs_NoMirroring": ["nnUNetTrainer_250epochs_NoMirroring"],
        }.items()
    ),
]


@pytest.mark.parametrize(("path", "names"), IMPORTS)
def test_upstream_imports_resolve(path: str, names: list[str]) -> None:
    module = importlib.import_module(f"nnunet_lite.{path}")
    assert all(hasattr(module, name) for name in names), [name for name in names if not hasattr(module, name)]


def test_every_moved_module_is_covered_above() -> None:
    assert set(MOVED) <= {path for path, _ in IMPORTS}


def test_a_name_that_is_nowhere_says_where_it_was_sought() -> None:
    module = importlib.import_module("nnunet_lite.utilities.label_handling.label_handling")
    with pytest.raises(AttributeError, match="has moved to plans.label_manager"):
        _ = module.no_such_name


def test_the_default_number_of_processes_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    configuration = importlib.import_module("nnunet_lite.configuration")
    assert configuration.default_num_processes == 3
