"""Use one dataset's plans for another, which fine-tuning needs: the same network, patch and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import PlansError
from nnunet_lite.experiment_planning.plan_documents import copy_dataset_documents
from nnunet_lite.experiment_planning.planning_rules import checked_plans_name
from nnunet_lite.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.configuration_manager import PREPROCESSING_KEYS
from nnunet_lite.plans.plans_manager import (
    PREPROCESSING_DOCUMENT_KEYS,
    PlansManager,
    available_plans,
    load_plans,
    plans_file,
)
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name, raw_folder
from nnunet_lite.utilities.files import save_json
from nnunet_lite.utilities.logging import logger


def move_plans_between_datasets(
    source_dataset_name_or_id: int | str,
    target_dataset_name_or_id: int | str,
    source_plans_identifier: str,
    target_plans_identifier: str | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the source's plans to the target's preprocessed folder (spec 01, 8.7); the path of the new file.

    Dataset, plans name and reader become the target's; data identifiers follow the plans name. Everything else,
    intensity statistics included, stays the source's, which is the point of fine-tuning.

    Args:
        target_plans_identifier: name of the new plans; None keeps the source's.
        overwrite: replace plans of that name that the target has already.

    Raises:
        DatasetError: no such dataset, or the target has no raw images to look at.
        PlansError: the source has no such plans, or the target has others of that name.
    """
    source = maybe_convert_to_dataset_name(source_dataset_name_or_id)
    target = maybe_convert_to_dataset_name(target_dataset_name_or_id)
    identifier = source_plans_identifier if target_plans_identifier is None else target_plans_identifier
    checked_plans_name(identifier)
    plans = load_plans(plans_file(source, source_plans_identifier))
    dataset = RawDataset.scan(raw_folder(target))
    example = next((case.images[0] for case in dataset.cases.values() if case.images), None)
    reader = determine_reader_writer_from_dataset_json(
        dataset.dataset_json.raw, example, allow_nonmatching_filename=True
    )
    moved = {
        **plans,
        "dataset_name": target,
        "plans_name": identifier,
        "image_reader_writer": reader.__name__,
        "configurations": {
            name: _renamed(configuration, source_plans_identifier, identifier)
            for name, configuration in plans["configurations"].items()
        },
    }
    file = nnUNet_preprocessed / target / f"{identifier}.json"
    if file.is_file() and not overwrite and load_plans(file) != moved:
        raise PlansError(
            f"{target} has plans {identifier!r} of its own ({file}); give the moved ones another name with -tp, "
            "or replace them with --overwrite"
        )
    _warn_about_channels(moved, dataset.dataset_json.num_input_channels)
    _warn_about_shared_folders(moved, file)
    if not (file.parent / "dataset.json").is_file():
        copy_dataset_documents(dataset.folder, file.parent)
    save_json(moved, file, sort_keys=False)
    logger.info("Plans %s of %s were saved to %s", source_plans_identifier, source, file)
    return file


def _renamed(configuration: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """A configuration whose data identifier follows the new name of the plans."""
    identifier = configuration.get("data_identifier")
    if identifier is None or old == new:
        return dict(configuration)
    renamed = new + identifier[len(old) :] if identifier.startswith(old) else f"{new}_{identifier}"
    return {**configuration, "data_identifier": renamed}


def _warn_about_channels(plans: Mapping[str, Any], channels: int) -> None:
    manager = PlansManager(plans)
    schemes = manager.get_configuration(manager.available_configurations[0]).normalization_schemes
    if len(schemes) != channels:
        logger.warning(
            "%s has %d channels, the plans are for %d; they cannot be used until normalization_schemes and "
            "use_mask_for_norm are corrected",
            plans["dataset_name"],
            channels,
            len(schemes),
        )


def _warn_about_shared_folders(plans: Mapping[str, Any], file: Path) -> None:
    """Warn if other plans of the target store differently preprocessed cases in the same folder."""
    mine = _folders(plans)
    for other in available_plans(file.parent) if file.parent.is_dir() else []:
        if other == file.stem:
            continue
        theirs = _folders(load_plans(file.parent / f"{other}.json"))
        both = [name for name in mine if name in theirs and mine[name] != theirs[name]]
        if both:
            logger.warning(
                "Plans %s store cases in %s, too, preprocessed otherwise: each replaces the other's; "
                "give the moved plans a name of their own with -tp",
                other,
                ", ".join(both),
            )


def _folders(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Data identifier -> what decides about its content."""
    manager = PlansManager(plans)
    found: dict[str, Any] = {}
    for name in manager.available_configurations:
        configuration = manager.get_configuration(name).configuration
        content = [*map(manager.plans.get, PREPROCESSING_DOCUMENT_KEYS), *map(configuration.get, PREPROCESSING_KEYS)]
        found[str(configuration.get("data_identifier"))] = content
    return found
