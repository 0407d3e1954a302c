"""Fingerprint, plan and preprocess several datasets: what the planning commands call (upstream's function names)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.configuration import usable_processes
from nnunet_lite.exceptions import ArgumentError, ExtensionError, PlansError
from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.experiment_planning.fingerprint_extractor import DatasetFingerprintExtractor, complete_fingerprint
from nnunet_lite.experiment_planning.plan_report import describe_plans, summarize_plans
from nnunet_lite.experiment_planning.planning_rules import checked_plans_name, checked_target_spacing
from nnunet_lite.experiment_planning.verify_dataset_integrity import (
    DatasetCheck,
    check_dataset,
    verify_dataset_integrity,
)
from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw
from nnunet_lite.plans.configuration_manager import PREPROCESSING_KEYS
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.plans_manager import PlansManager, plans_file
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name, raw_folder
from nnunet_lite.utilities.files import copy_file, subfiles
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parts import WHOLE, Part, check_part

DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
DEFAULT_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}
OTHER_PROCESSES = 4  # for configurations not named above


def extract_fingerprints(
    dataset_ids: Sequence[int | str],
    fingerprint_extractor_class_name: str = "DatasetFingerprintExtractor",
    num_processes: int | None = None,
    check_dataset_integrity: bool = False,
    clean: bool = True,
    verbose: bool = True,
    show_progress_bar: bool = True,
    max_ram: int | None = None,
    num_parts: int = 1,
    part_id: int = 0,
) -> None:
    """Extract the fingerprint of each dataset to nnUNet_preprocessed.

    Args:
        dataset_ids: ids or names.
        num_processes: background processes; None is nnUNet_def_n_proc, else 8.
        check_dataset_integrity: check every image and label of the dataset first.
        clean: extract again where there is a fingerprint.
        max_ram: bytes that the background work may take together.
        num_parts, part_id: examine only every num_parts-th case, beginning with number part_id; the part that is last
            makes the fingerprint of all.

    Raises:
        DatasetError: no such dataset, or something is wrong with its files.
    """
    part = check_part(num_parts, part_id)
    extractor_class = find_class("fingerprint_extractor", fingerprint_extractor_class_name)
    processes = usable_processes(num_processes)
    for name in _dataset_names(dataset_ids):
        extractor = extractor_class(name, processes, verbose=verbose)
        _configure(extractor, show_progress_bar, max_ram, part)
        if extractor_class is DatasetFingerprintExtractor:  # checks in the same pass over the files
            extractor.run(overwrite_existing=clean, check_dataset_integrity=check_dataset_integrity)
            continue
        if check_dataset_integrity:
            verify_dataset_integrity(nnUNet_raw / name, processes, show_progress=show_progress_bar, max_ram=max_ram)
        extractor.run(overwrite_existing=clean)


def check_datasets(
    dataset_ids: Sequence[int | str],
    num_processes: int | None = None,
    show_progress_bar: bool = True,
    max_ram: int | None = None,
) -> Iterator[DatasetCheck]:
    """Check raw datasets one after the other and yield what was found; all of them must exist.

    Raises:
        DatasetError: no such dataset.
        ArgumentError: no dataset was given.
    """
    for folder in [raw_folder(name) for name in _dataset_names(dataset_ids, (nnUNet_raw,))]:
        yield check_dataset(folder, num_processes, show_progress=show_progress_bar, max_ram=max_ram)


def plan_experiments(
    dataset_ids: Sequence[int | str],
    experiment_planner_class_name: str = "ExperimentPlanner",
    gpu_memory_target_in_gb: float | None = None,
    preprocess_class_name: str = "DefaultPreprocessor",
    overwrite_target_spacing: Sequence[float | str] | None = None,
    overwrite_plans_name: str | None = None,
    dry_run: bool = False,
) -> str:
    """Plan each dataset from its fingerprint; returns the plans identifier (of the last one, all are the same).

    Args:
        dry_run: write nothing, but log what was decided and why.

    Raises:
        ExtensionError: no such planner (lists those that exist) or preprocessor.
        PlansError, DatasetError: no fingerprint, or dataset.json is unusable.
        ArgumentError: a target spacing or memory target that cannot be, a planner that cannot be run dry.
    """
    names = _dataset_names(dataset_ids)
    check_planning_arguments(
        experiment_planner_class_name, preprocess_class_name, overwrite_target_spacing, overwrite_plans_name
    )
    planner_class = _planner_class(experiment_planner_class_name)
    if dry_run and not issubclass(planner_class, ExperimentPlanner):
        raise ArgumentError(
            f"--dry-run: {experiment_planner_class_name} is not derived from ExperimentPlanner, so it would write its "
            "plans all the same; plan without --dry-run, under a name of its own (-overwrite_plans_name)"
        )
    options: dict[str, Any] = {"preprocessor_name": preprocess_class_name}
    if overwrite_target_spacing is not None:
        options["overwrite_target_spacing"] = checked_target_spacing(overwrite_target_spacing)
    if gpu_memory_target_in_gb is not None:
        options["gpu_memory_target_in_gb"] = gpu_memory_target_in_gb
    if overwrite_plans_name is not None:
        options["plans_name"] = overwrite_plans_name
    for name in [] if dry_run else names:
        complete_fingerprint(name)
    planners = [planner_class(name, **options) for name in names]  # reads all fingerprints before anything is planned
    if experiment_planner_class_name == "ExperimentPlanner":
        logger.info(
            "Planning the default U-Net. The residual encoder presets reach higher accuracy: "
            "-pl nnUNetPlannerResEncM, L or XL for GPUs of 8-11, 24 and 40 GB"
        )
    identifier = ""
    for planner in planners:
        planner.dry_run = dry_run
        planner.plan_experiment()
        identifier = str(planner.plans_identifier)
        _report(planner)
    return identifier


def _planner_class(name: str) -> Any:
    found = find_class("planner", name)
    if not isinstance(found, type):
        raise ExtensionError(f"{name!r} is no planner; planners are: {', '.join(known_names('planner'))}")
    return found


def _report(planner: Any) -> None:
    """Say what was planned; planners that share nothing with ours are left alone."""
    if not isinstance(planner, ExperimentPlanner) or planner.plans is None:
        return
    if planner.dry_run:
        logger.info("%s\n\nThis was a dry run: nothing was written.", describe_plans(planner, planner.plans))
    else:
        logger.info("%s", summarize_plans(planner.plans))


def check_planning_arguments(
    experiment_planner_class_name: str,
    preprocess_class_name: str,
    overwrite_target_spacing: Sequence[float | str] | None,
    overwrite_plans_name: str | None,
) -> None:
    """Refuse what no planning can work with, before anything is read.

    Raises:
        ExtensionError: no such planner (lists those that exist) or preprocessor.
        ArgumentError: a target spacing that is not three positive numbers, a name that is no file name.
    """
    _planner_class(experiment_planner_class_name)
    if preprocess_class_name not in known_names("preprocessor"):  # a look at the files; importing it takes longer
        find_class("preprocessor", preprocess_class_name)
    checked_target_spacing(overwrite_target_spacing)
    if overwrite_plans_name is not None:
        checked_plans_name(overwrite_plans_name)


def preprocess(
    dataset_ids: Sequence[int | str],
    plans_identifier: str = "nnUNetPlans",
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    num_processes: Sequence[int] | int | None = None,
    verbose: bool = False,
    show_progress_bar: bool = True,
    max_ram: int | None = None,
    num_parts: int = 1,
    part_id: int = 0,
) -> None:
    """Preprocess the training cases of each dataset for these configurations and copy the reference labels.

    Configurations that the plans do not have are skipped with a message; those that share their cases with an earlier
    one are done with it.

    Args:
        num_processes: background processes, one number for all or one per configuration; None is 8 for 2d and
            3d_lowres, 4 for others.
        max_ram: bytes that the background work may take together.
        num_parts, part_id: preprocess only every num_parts-th case, beginning with number part_id.

    Raises:
        PlansError: no such plans, none of the configurations exists (lists those that do), or two of them would put
            different cases into one folder.
        ArgumentError: a list of processes that fits neither form.
    """
    part = check_part(num_parts, part_id)
    processes = processes_per_configuration(configurations, num_processes)
    names = _dataset_names(dataset_ids)
    managers = [PlansManager(plans_file(name, plans_identifier)) for name in names]
    for name, plans_manager in zip(names, managers, strict=True):
        _warn_if_dataset_json_changed(name)
        for configuration in _distinct_configurations(plans_manager, configurations):
            logger.info("Preprocessing %s, configuration %s", name, configuration)
            preprocessor = plans_manager.get_configuration(configuration).preprocessor_class(verbose=verbose)
            _configure(preprocessor, show_progress_bar, max_ram, part)
            preprocessor.run(name, configuration, plans_identifier, num_processes=processes[configuration])
        copy_reference_labels(name, plans_manager.image_reader_writer_class(), part)


def copy_reference_labels(dataset_name: str, reader: BaseReaderWriter, part: Part = WHOLE) -> None:
    """Copy label files to gt_segmentations/<case><file_ending> of the preprocessed folder, where newer (a part's own).

    What belongs to a label goes with it (the spacing beside a TIFF), or metrics would be made without it. Labels of
    cases that left the dataset go.
    """
    dataset = RawDataset.load(dataset_name)
    folder = nnUNet_preprocessed / dataset.name / "gt_segmentations"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale_labels(folder, dataset, reader)
    for case in part.of(dataset.cases.values()):
        if case.label is None:
            continue
        copy_file(case.label, folder / f"{case.identifier}{dataset.dataset_json.file_ending}", only_if_newer=True)
        for companion in reader.companion_files(case.label):
            copy_file(companion, folder / f"{case.identifier}{Path(companion).suffix}", only_if_newer=True)


def _remove_stale_labels(folder: Path, dataset: RawDataset, reader: BaseReaderWriter) -> None:
    """Remove labels of cases the raw dataset does not have; files of other kinds stay."""
    ending = dataset.dataset_json.file_ending
    for file in subfiles(folder, ending):
        if Path(file).name[: -len(ending)] not in dataset.cases:
            for stale in [*reader.companion_files(file), file]:
                Path(stale).unlink(missing_ok=True)


def _dataset_names(
    dataset_ids: Sequence[int | str], needed: Sequence[os.PathLike[str]] = (nnUNet_raw, nnUNet_preprocessed)
) -> list[str]:
    """Names of the datasets, each once; raises PathError for a folder that is not set, before anything is done."""
    if not dataset_ids:
        raise ArgumentError("No dataset was given; name at least one id, for example 4")
    for root in needed:
        os.fspath(root)
    return list(dict.fromkeys(maybe_convert_to_dataset_name(dataset) for dataset in dataset_ids))


def _configure(worker: Any, show_progress_bar: bool, max_ram: int | None, part: Part) -> None:
    """Settings upstream's constructors do not have; classes of one's own need not know them."""
    worker.show_progress = show_progress_bar
    worker.max_ram = max_ram
    worker.part = part


def processes_per_configuration(
    configurations: Sequence[str], num_processes: Sequence[int] | int | None
) -> Mapping[str, int]:
    """Background processes of each configuration. Raises ArgumentError for a list that fits neither form."""
    if num_processes is None:
        return {name: DEFAULT_PROCESSES.get(name, OTHER_PROCESSES) for name in configurations}
    numbers = [num_processes] if isinstance(num_processes, int) else list(num_processes)
    if len(numbers) == 1:
        numbers *= len(configurations)
    if min(numbers, default=0) < 0:
        raise ArgumentError(f"num_processes is {min(numbers)}, expected 0 (work in this process) or more")
    if len(numbers) != len(configurations):
        raise ArgumentError(
            f"num_processes is {numbers} for the configurations {', '.join(configurations)}; expected one number for "
            "all of them or one for each"
        )
    return dict(zip(configurations, numbers, strict=True))


def _distinct_configurations(plans_manager: PlansManager, configurations: Sequence[str]) -> list[str]:
    """Those that exist, one per folder of preprocessed cases, in the order asked for."""
    available = plans_manager.available_configurations
    existing = [name for name in configurations if name in available]
    if not existing:
        raise PlansError(
            f"Plans {plans_manager.plans_name} of {plans_manager.dataset_name} have none of the configurations "
            f"{', '.join(configurations)}; they have: {', '.join(available)}"
        )
    for name in configurations:
        if name not in available:
            logger.info(
                "Configuration %s is not in plans %s (%s) and is skipped",
                name,
                plans_manager.plans_name,
                ", ".join(available),
            )
    first: dict[str, str] = {}
    for name in existing:
        _refuse_shared_folder(plans_manager, name)
        other = first.setdefault(plans_manager.get_configuration(name).data_identifier, name)
        if other != name:
            logger.info("Configuration %s uses the preprocessed cases of %s", name, other)
    return list(first.values())


def _refuse_shared_folder(plans_manager: PlansManager, name: str) -> None:
    """Raise PlansError if any other configuration, asked for or not, stores other cases in the folder of this one."""
    mine = plans_manager.get_configuration(name)
    for other in plans_manager.available_configurations:
        try:
            theirs = plans_manager.get_configuration(other)
            shared = theirs.data_identifier == mine.data_identifier
        except PlansError:  # a fault of a configuration nobody asked for
            continue
        different = [key for key in PREPROCESSING_KEYS if theirs.configuration.get(key) != mine.configuration.get(key)]
        if shared and different:
            given = plans_manager.plans["configurations"][other]
            deviates = "inherits_from" in given and any(key in given for key in different)
            first, second = (name, other) if deviates else (other, name)
            raise PlansError(
                f"Configurations {first} and {second} of {plans_manager.plans_name} both store their cases in "
                f"{mine.data_identifier} but differ in {', '.join(different)}; give {second} a data_identifier "
                "of its own in the plans"
            )


def _warn_if_dataset_json_changed(dataset_name: str) -> None:
    files = [Path(root / dataset_name / "dataset.json") for root in (nnUNet_raw, nnUNet_preprocessed)]
    there = [DatasetJson.from_file(file).raw for file in files if file.is_file()]
    if len(there) == 2 and there[0] != there[1]:
        logger.warning(
            "%s was changed since %s was planned; its old content is used until you plan again", files[0], dataset_name
        )
