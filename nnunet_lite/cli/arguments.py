"""The vocabulary of the command line: each flag's spelling, type, default and help, once.

A command is a list of these flags; where upstream gives one flag another default or meaning, `but` says so beside it.
Nothing heavy is imported here, so that -h answers at once.
"""

from __future__ import annotations

import argparse
import functools
import math

from nnunet_lite.cli.command import Flag
from nnunet_lite.configuration import num_processes_default, num_processes_prediction
from nnunet_lite.exceptions import ArgumentError


def dataset(text: str) -> int | str:
    """A dataset as id (4, 004) or folder name (Dataset004_Hippocampus)."""
    return int(text) if text.isdecimal() else text


def fold(text: str) -> int | str:
    """A fold number or `all`."""
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(f"fold {text!r}: expected a whole number or 'all'") from None


def positive_float(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above zero")
    return value


def natural_number(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def positive_int(text: str) -> int:
    """A whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _switch(*names: str, help: str) -> Flag:
    return Flag(*names, action="store_true", default=False, help=help)


# datasets, models and their parts
DATASETS = Flag(
    "-d", nargs="+", type=dataset, required=True, help="dataset ids or names, for example 4 Dataset005_Prostate"
)
DATASET = Flag("-d", type=dataset, required=True, help="dataset id or name")
DATASET_POSITION = Flag("dataset_name_or_id", type=dataset, help="dataset id or name")
CONFIGURATION_POSITION = Flag("configuration", help="2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres or one of your own")
FOLD_POSITION = Flag("fold", help="fold of the cross-validation (0, 1, 2 ...) or all")
CONFIGURATIONS = Flag(
    "-c",
    nargs="+",
    default=["2d", "3d_fullres", "3d_lowres"],
    help="configurations; those that the plans do not have are skipped (default: 2d 3d_fullres 3d_lowres)",
)
CONFIGURATION = Flag("-c", required=True, help="configuration, for example 3d_fullres")
PLANS = Flag("-p", default="nnUNetPlans", help="plans identifier: the plans file without .json (default: %(default)s)")
PLANS_NAME = Flag(
    "-plans_name", default="nnUNetPlans", help="plans identifier: the plans file without .json (default: %(default)s)"
)
TRAINER = Flag("-tr", default="nnUNetTrainer", help="trainer class, of the package or your own (default: %(default)s)")
FOLDS = Flag(
    "-f", nargs="+", default=[0, 1, 2, 3, 4], help="folds of the trained model, numbers or all (default: 0 1 2 3 4)"
)
CHECKPOINT = Flag(
    "-chk",
    default="checkpoint_final.pth",
    help="checkpoint file, for example checkpoint_best.pth (default: %(default)s)",
)
DEVICE = Flag(
    "-device",
    default="cuda",
    help="cuda, cpu, mps, or auto: the first of cuda, mps, cpu that there is; CUDA_VISIBLE_DEVICES chooses the GPU "
    "(default: %(default)s)",
)
PRECISION = Flag(
    "--precision",
    default="auto",
    choices=("auto", "float32", "bf16", "fp16"),
    help="numbers of the network; auto: fp16 on CUDA, on a CPU float32 for prediction and, where the "
    "processor has it, bf16 for training (default: %(default)s)",
)

# planning and preprocessing
FINGERPRINT_EXTRACTOR = Flag(
    "-fpe", default="DatasetFingerprintExtractor", help="fingerprint extractor class (default: %(default)s)"
)
FINGERPRINT_PROCESSES = Flag(
    "-npfp", type=int, default=8, help="processes for fingerprint and integrity check (default: %(default)s)"
)
VERIFY_INTEGRITY = _switch(
    "--verify_dataset_integrity", help="check every image and label first; recommended for a new dataset"
)
REPORT_JSON = Flag(
    "--json", dest="json", metavar="FILE", default=None, help="also write everything that was found to this file"
)
NO_PREPROCESSING = _switch("--no_pp", help="stop after planning")
CLEAN = _switch("--clean", help="recompute an existing fingerprint")
PLANNER = Flag(
    "-pl", default="ExperimentPlanner", help="planner class, for example nnUNetPlannerResEncM (default: %(default)s)"
)
GPU_MEMORY_TARGET = Flag(
    "-gpu_memory_target",
    type=positive_float,
    default=None,
    help="GPU memory to plan for, in GB (default: the planner's)",
)
PREPROCESSOR = Flag(
    "-preprocessor_name", default="DefaultPreprocessor", help="preprocessor class (default: %(default)s)"
)
TARGET_SPACING = Flag(
    "-overwrite_target_spacing",
    nargs="+",
    default=None,
    help="target spacing of 3d_fullres in mm, three numbers in the images' axis order; 2d, 3d_lowres "
    "and the cascade follow it",
)
PLANS_IDENTIFIER = Flag(
    "-overwrite_plans_name", default=None, help="name of the plans (give one whenever you change how they are made)"
)
DRY_RUN = _switch("--dry-run", help="write nothing; print what would be decided and why, from the fingerprint alone")
PREPROCESSING_PROCESSES = Flag(
    "-np",
    nargs="+",
    type=int,
    default=None,
    help="processes per configuration: one number for all, or one for each (default: 2d 8, "
    "3d_fullres 4, 3d_lowres 8, others 4)",
)
NO_PROGRESS_BAR = _switch("--no_pbar", help="no progress bars")
VERBOSE = _switch("--verbose", help="print more messages")
MAX_RAM = Flag(
    "--max-ram",
    dest="max_ram",
    default=None,
    metavar="SIZE",
    help="memory that background work may take together, for example 16G (default: 80 %% of what is free)",
)
MAX_RAM_OF_PREDICTION = MAX_RAM.but(
    help="memory that the prediction may take with all its processes, for example 16G (default: 80 %% of what is free)"
)

# moving and adapting plans
SOURCE_DATASET = Flag("-s", type=dataset, required=True, help="dataset that has the plans, id or name")
TARGET_DATASET = Flag("-t", type=dataset, required=True, help="dataset that gets them, id or name")
SOURCE_PLANS = Flag("-sp", required=True, help="plans identifier, for example nnUNetPlans")
TARGET_PLANS = Flag("-tp", default=None, help="name of the plans in the target (default: as in the source)")
OVERWRITE_PLANS = _switch("--overwrite", help="replace other plans of that name that the target has")
PRETRAINING_NAME = Flag(
    "-n", "--pretraining_name", required=True, help="name of the pretraining, part of the plans' name"
)
PRETRAINED_CHECKPOINT = Flag(
    "-pc",
    "--pretrained_checkpoint",
    required=True,
    help="checkpoint file, or https://huggingface.co/<owner>/<repository> (needs huggingface_hub)",
)
ADAPTATION_MODE = Flag(
    "-am",
    "--adaptation_mode",
    default="default_nnunet",
    choices=("fixed", "default_nnunet", "no_resample", "like_pretrained"),
    help="spacing: as planned, as -os says, as the images are, or as in pretraining (default: %(default)s)",
)
OVERRIDE_SPACING = Flag(
    "-os",
    "--override_spacing",
    nargs="+",
    type=positive_float,
    default=None,
    help="spacing for -am fixed: three numbers in mm in transposed order (the coarsest axis first)",
)
BASE_PLANS = Flag("-pl", "--plans_identifier", default="nnUNetPlans", help="plans to start from (default: %(default)s)")
ADAPTATION_PROCESSES = Flag("-np", type=int, default=4, help="processes (default: %(default)s)")
OVERWRITE_PREPROCESSED = _switch("--overwrite_pp", help="preprocess again what is there already")

# training
PRETRAINED_WEIGHTS = Flag(
    "-pretrained_weights",
    default=None,
    help="checkpoint of another training to start from; the network must be the same, but for its last layers",
)
FROM_SCRATCH = _switch("--from_scratch", help="the same training without the pretrained weights, for comparison")
OTHER_CHECKPOINT = Flag(
    "-overwrite_ckpt_path", default=None, help="checkpoint to start from instead of the one that the plans name"
)
NUM_GPUS = Flag(
    "-num_gpus", type=positive_int, default=1, help="GPUs of this machine to train on together (default: %(default)s)"
)
SAVE_VALIDATION_PROBABILITIES = _switch(
    "--npz", help="store the probabilities of the final validation, needed for ensembling"
)
CONTINUE_TRAINING = _switch("--c", help="continue from the latest checkpoint; starts fresh where there is none")
ONLY_VALIDATION = _switch("--val", help="only run the final validation of a finished training")
VALIDATE_BEST = _switch(
    "--val_best",
    help="the final validation uses checkpoint_best; alone: after training; with --val: of a finished training",
)
DISABLE_CHECKPOINTING = _switch(
    "--disable_checkpointing", help="write no checkpoints: for trying things out, nothing can be continued"
)
EPOCHS = Flag("--epochs", type=positive_int, default=None, help="epochs to train (default: the trainer's, 1000)")
ITERATIONS = Flag(
    "--iterations",
    type=positive_int,
    default=None,
    help="training iterations per epoch, those of validation in proportion (default: the trainer's, 250)",
)
LEARNING_RATE = Flag(
    "--lr", type=positive_float, default=None, help="initial learning rate (default: the trainer's, 0.01)"
)
BATCH_SIZE = Flag(
    "--batch-size",
    dest="batch_size",
    type=positive_int,
    default=None,
    help="patches per batch, all GPUs together (default: that of the plans, which stay as they are)",
)
SEED = Flag(
    "--seed",
    type=natural_number,
    default=None,
    help="make batches and initial weights reproducible (default: another one each time)",
)
DETERMINISTIC = _switch(
    "--deterministic",
    help="only reproducible algorithms: with --seed, twice the same training gives the same weights on a CPU",
)
PREVIOUS_STAGE_TRAINER = Flag(
    "--previous-stage-trainer",
    dest="previous_stage_trainer",
    metavar="NAME",
    default=None,
    help="for the second stage of a cascade: trainer whose first stage it learns from, with its flags as in the "
    "folder's name, for example nnUNetTrainer_e20 (default: the trainer and flags of this training)",
)
OVERWRITE = _switch("--overwrite", help="train again where a finished training lies, replacing it")

# prediction
INPUT = Flag(
    "-i", required=True, help="folder of images (CASE_0000.nii.gz ...), or one image file of a one-channel model"
)
OUTPUT = Flag(
    "-o",
    required=True,
    help="folder for the predictions (created), or the output file "
    "for one input file; plans.json and dataset.json are written beside them",
)
MODEL_FOLDER = Flag("-m", required=True, help="model folder (Trainer__Plans__Configuration), wherever it lies")
STEP_SIZE = Flag(
    "-step_size",
    type=float,
    default=0.5,
    help="step between tiles as a part of the patch size; smaller is slower (default: %(default)s)",
)
DISABLE_TTA = _switch("--disable_tta", help="no mirroring: up to 8 times faster, slightly less accurate")
SAVE_PROBABILITIES = _switch("--save_probabilities", help="also store probabilities (.npz) and properties (.pkl)")
CONTINUE_PREDICTION = _switch("--continue_prediction", help="skip cases whose output exists")
CONTINUE_PREDICTION_ALIAS = _switch("--continue_prediction", "--c", help="skip cases whose output exists")
PREDICTION_PREPROCESSING = Flag(
    "-npp",
    type=natural_number,
    default=functools.partial(num_processes_prediction, "nnUNet_npp"),
    help="preprocessing processes, 0: in this one (default: %(default)s)",
)
PREDICTION_EXPORT = Flag(
    "-nps",
    type=natural_number,
    default=functools.partial(num_processes_prediction, "nnUNet_nps"),
    help="export processes, 0: in this one (default: %(default)s)",
)
PREVIOUS_STAGE = Flag(
    "-prev_stage_predictions",
    default=None,
    help="cascade: folder with the previous stage's predictions (default: they are predicted first)",
)
NUM_PARTS = Flag("-num_parts", type=int, default=1, help="number of calls that share the work (default: %(default)s)")
PART_ID = Flag("-part_id", type=int, default=0, help="number of this call, from 0 (default: %(default)s)")
DISABLE_PROGRESS_BAR = _switch("--disable_progress_bar", help="a line for each case instead of a progress bar")
NOT_ON_DEVICE = _switch("--not_on_device", help="keep the images and sums in main memory to save GPU memory; slower")

# evaluation
REFERENCE_FOLDER = Flag("gt_folder", help="folder with the reference segmentations")
PREDICTION_FOLDER = Flag("pred_folder", help="folder with the predicted segmentations")
DATASET_JSON = Flag("-djfile", required=True, help="dataset.json: names the labels or regions to evaluate")
PLANS_FILE = Flag("-pfile", required=True, help="plans.json: names the reader of the images")
METRICS_OUTPUT = Flag("-o", default=None, help="output file (default: pred_folder/summary.json)")
LABELS = Flag("-l", nargs="+", type=int, required=True, help="labels to evaluate")
IGNORE_LABEL = Flag("-il", type=int, default=None, help="ignore label: reference voxels that do not count")
PROCESSES = Flag("-np", type=int, default=num_processes_default, help="processes (default: %(default)s)")
CHILL = _switch("--chill", help="do not insist that every reference has a prediction")
ADDITIONAL_METRICS = Flag(
    "--metrics",
    nargs="+",
    default=None,
    choices=("surface", "volume", "lesion", "all"),
    help="further metrics: surface (HD95, average surface distance, surface Dice), volume, lesion (lesions found, "
    "missed and false); they get a key of their own in the output and a table (.csv) beside it",
)
NSD_TOLERANCE = Flag(
    "--nsd_tolerance",
    nargs="+",
    type=positive_float,
    default=None,
    metavar="MM",
    help="tolerance of the surface Dice in mm: one number for all classes, or one for each in their order (default: 1)",
)
METRICS_TABLE = _switch("--csv", help="also write a table (.csv) beside the output; --metrics does so by itself")

# cross-validation, postprocessing, ensembles
TRAINERS = Flag("-tr", nargs="+", default=["nnUNetTrainer"], help="trainer classes (default: nnUNetTrainer)")
SEVERAL_PLANS = Flag("-p", nargs="+", default=["nnUNetPlans"], help="plans identifiers (default: nnUNetPlans)")
COMPARED_CONFIGURATIONS = CONFIGURATIONS.but(
    default=["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"],
    help="configurations; those that the plans do not have are left out (default: 2d 3d_fullres 3d_lowres "
    "3d_cascade_fullres)",
)
CROSSVALIDATION_FOLDS = Flag(
    "-f", nargs="+", type=fold, default=[0, 1, 2, 3, 4], help="folds, numbers or all (default: 0 1 2 3 4)"
)
ACCUMULATED_OUTPUT = Flag(
    "-o", default=None, help="output folder, new or empty (default: crossval_results_folds_* in the model's folder)"
)
NO_ENSEMBLING = _switch("--disable_ensembling", help="compare single models alone")
NO_OVERWRITE = _switch("--no_overwrite", help="keep segmentations that an earlier call has put together")
COMPUTE_MISSING = _switch(
    "--compute_missing", help="validate trained folds whose predictions or probabilities are missing (--val --npz)"
)
PREDICTIONS = Flag("-i", required=True, help="folder with segmentations")
REFERENCES = Flag("-ref", required=True, help="folder with the reference segmentations")
PLANS_OF_PREDICTIONS = Flag(
    "-plans_json", "--plans_json", default=None, help="plans.json (default: the one beside the segmentations)"
)
DATASET_OF_PREDICTIONS = Flag(
    "-dataset_json", "--dataset_json", default=None, help="dataset.json (default: the one beside the segmentations)"
)
REMOVE_POSTPROCESSED = _switch("--remove_postprocessed", help="write no postprocessed segmentations")
POSTPROCESSING_FILE = Flag(
    "-pp_pkl_file", "--pp_pkl_file", required=True, help="postprocessing.pkl, or the postprocessing.json beside it"
)
FOLDERS_TO_ENSEMBLE = Flag(
    "-i", nargs="+", required=True, help="folders predicted with --save_probabilities, one per model"
)
SAVE_MERGED = _switch("--save_npz", help="write the averaged probabilities as well")

# sharing models
EXPORTED_CONFIGURATIONS = COMPARED_CONFIGURATIONS.but(
    default=["3d_lowres", "3d_fullres", "2d", "3d_cascade_fullres"],
    help="configurations (default: 3d_lowres 3d_fullres 2d 3d_cascade_fullres)",
)
EXPORTED_CHECKPOINTS = Flag(
    "-chk", nargs="+", default=["checkpoint_final.pth"], help="checkpoint files to pack (default: checkpoint_final.pth)"
)
ZIP_OUTPUT = Flag("-o", required=True, help="zip file to write")
NOT_STRICT = _switch("--not_strict", help="pack the models and files there are; checkpoints and plans are required")
EXPORT_PREDICTIONS = _switch("--exp_cv_preds", help="pack the segmentations of the cross-validation, too")
INFERENCE_ONLY = _switch("--inference_only", help="leave out what only continuing a training needs")
ZIP_POSITION = Flag("zip", help="zip of models, of ours or of nnU-Net")
URL_POSITION = Flag("url", help="address of a zip of models: https, http or file")
SHA256 = Flag("--sha256", default=None, help="checksum that the file must have")
OVERWRITE_MODELS = _switch("--overwrite", help="replace models of that name that are there")

# conversion
TARGET_ID = Flag("-overwrite_id", type=int, default=None, help="id of the new dataset (default: the task's number)")
V1_TASK_FOLDER = Flag(
    "input_folder", help="path of the v1 task: the folder that holds imagesTr, labelsTr, dataset.json"
)
NEW_DATASET_NAME = Flag("output_dataset_name", help="name of the new dataset, DatasetXXX_NAME (no path)")

# pictures
CHANNEL_INDEX = Flag("-channel_idx", type=int, default=0, help="channel that is shown (default: %(default)s)")
USE_RAW = _switch("--use_raw", help="draw the raw images (default: the preprocessed ones)")
OVERLAY_INTENSITY = Flag(
    "-overlay_intensity",
    type=float,
    default=0.6,
    help="strength of the colours: more is brighter and hides more of the image (default: %(default)s)",
)
CONTOURS = _switch("--contours", help="draw the outlines of the labels instead of filling them")
LEGEND = _switch("--legend", help="larger pictures in true proportions, with the names of the labels")

# demo
DEMO_FOLDER = Flag("--out", default="demo", help="folder for everything the demo makes (default: %(default)s)")
DEMO_DEVICE = Flag(
    "-device",
    "--device",
    choices=("cuda", "cpu", "mps", "auto"),
    help="cuda, cpu, mps, or auto: the first of cuda, mps, cpu that there is (default: cuda if there is one, else cpu)",
)
