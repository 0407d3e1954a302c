"""Plans for fine-tuning self-supervised (nnssl) checkpoints (spec 01, 8.8 and 8.9)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from nnunet_lite.exceptions import ArgumentError, CheckpointError, PathError, PlansError
from nnunet_lite.experiment_planning.plan_and_preprocess_api import preprocess
from nnunet_lite.experiment_planning.planning_rules import checked_plans_name
from nnunet_lite.paths import nnssl_pretrained_models, nnUNet_preprocessed
from nnunet_lite.plans.checked_values import numbers
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import short
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.plans_manager import PlansManager, available_plans, load_plans, plans_file
from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name
from nnunet_lite.preprocessing.resume import FinishedCases
from nnunet_lite.utilities.files import save_json
from nnunet_lite.utilities.logging import logger

BASE_PLANS = ("nnUNetPlans", *(f"nnUNetResEncUNet{size}Plans" for size in ("", "M", "L", "XL")))
ADAPTATION_MODES = ("fixed", "default_nnunet", "no_resample", "like_pretrained")
CONFIGURATION = "3d_fullres"
_HUGGING_FACE = "huggingface.co"
_SCHEME = "ZScoreNormalization"


class PretrainedModel(NamedTuple):
    """What a checkpoint says about how it was pretrained and what it expects."""

    path: Path
    plan: Mapping[str, Any]  # its nnssl_adaptation_plan
    citations: Any

    @property
    def pretraining(self) -> Mapping[str, Any]:
        """The first configuration of the pretraining: spacing, patch_size."""
        configurations = self.needed("pretrain_plan", Mapping).get("configurations")
        values = list(configurations.values()) if isinstance(configurations, Mapping) else configurations
        if not isinstance(values, (list, tuple)) or not values or not isinstance(values[0], Mapping):
            raise CheckpointError(f"{self.path}: its adaptation plan has no pretrain_plan.configurations")
        return dict(values[0])

    def needed(self, key: str, kind: type = object) -> Any:
        """A value of the adaptation plan. Raises CheckpointError if it is missing or of another kind."""
        if key not in self.plan:
            existing = ", ".join(map(str, self.plan))
            raise CheckpointError(f"{self.path}: its adaptation plan has no {key!r}; it has: {existing}")
        if not isinstance(self.plan[key], kind):
            found = short(self.plan[key])
            raise CheckpointError(f"{self.path}: {key!r} of its adaptation plan is {found}, expected keys and values")
        return self.plan[key]

    def three_numbers(self, what: str, value: Any, *, whole: bool = False) -> list[Any]:
        """Three positive numbers that the checkpoint names. Raises CheckpointError."""
        try:
            return list(numbers(value, what, (3,), whole=whole))
        except PlansError as error:
            kind = "positive whole numbers" if whole else "positive numbers"
            raise CheckpointError(f"{self.path}: {what} is {short(value)}, expected three {kind}") from error


def preprocess_like_nnssl(
    dataset_name_or_id: int | str,
    pretraining_name: str,
    pretrained_checkpoint: str,
    adaptation_mode: str = "default_nnunet",
    override_spacing: Sequence[float] | None = None,
    num_processes: int = 4,
    verbose: bool = False,
    overwrite_pp: bool = False,
) -> str:
    """Plan 3d_fullres with the network and patch of a checkpoint, z-scores everywhere, and preprocess; the plans' name.

    Args:
        pretraining_name: part of the plans' name, to tell several checkpoints apart.
        pretrained_checkpoint: a file, or https://huggingface.co/<owner>/<repository>.
        adaptation_mode: spacing: "default_nnunet" as planned, "fixed" as `override_spacing`, "like_pretrained" as the
            checkpoint's (as planned if it has none), "no_resample" every case as it is.
        override_spacing: three numbers in mm, transposed axis order; needed for "fixed".
        overwrite_pp: preprocess again what is there already.

    Raises:
        ArgumentError: mode and spacing do not go together.
        PlansError: the dataset has not been planned.
        CheckpointError, PathError: the checkpoint cannot be had or says too little.
    """
    spacing = _override(adaptation_mode, override_spacing)
    checked_plans_name(pretraining_name)
    dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    base = load_plans(_base_plans(dataset))
    model = load_pretrained(pretrained_checkpoint)
    planned = PlansManager(base).get_configuration(CONFIGURATION)
    if adaptation_mode == "default_nnunet":
        spacing = planned.spacing
    elif adaptation_mode == "like_pretrained":
        own = model.pretraining.get("spacing")
        spacing = model.three_numbers("the spacing of its pretraining", own) if own else planned.spacing
    architecture = model.needed("architecture_plans", Mapping)
    patch_size = model.needed("recommended_downstream_patchsize")
    channels = len(planned.normalization_schemes)
    identifier = data_identifier(spacing, channels)
    name = f"ptPlans__{pretraining_name}____{identifier}"
    configuration = {
        **_content(planned),
        "data_identifier": identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": list(spacing),
        "batch_size": 2,
        "patch_size": model.three_numbers("the patch that it recommends", patch_size, whole=True),
        "normalization_schemes": [_SCHEME] * channels,
        "use_mask_for_norm": _masks(dataset, planned),
        "architecture": {
            "network_class_name": architecture.get("arch_class_name"),
            "arch_kwargs": architecture.get("arch_kwargs") or {},
            "_kw_requires_import": architecture.get("arch_kwargs_requiring_import") or [],
        },
    }
    _save(dataset, name, base, configuration, pretrain_info(model, pretraining_name), sort_keys=True)
    _preprocess(dataset, name, identifier, num_processes, verbose, overwrite_pp)
    return name


def plan_like_dynamic(
    dataset_name_or_id: int | str,
    pretraining_name: str,
    pretrained_checkpoint: str,
    plans_identifier: str = "nnUNetPlans",
    num_processes: int = 4,
    verbose: bool = False,
    overwrite_pp: bool = False,
) -> str:
    """Keep a dataset's own 3d_fullres and only note the checkpoint in new plans; their name.

    Args, Raises: see `preprocess_like_nnssl`; plans_identifier names the plans to start from.
    """
    checked_plans_name(pretraining_name)
    dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    base = load_plans(plans_file(dataset, plans_identifier))
    model = load_pretrained(pretrained_checkpoint)
    planned = PlansManager(base).get_configuration(CONFIGURATION)
    name = f"ptPlans_dynamic__{pretraining_name}"
    kwargs = model.plan.get("architecture_kwargs")
    if not kwargs and "architecture_plans" in model.plan:
        kwargs = model.needed("architecture_plans", Mapping).get("arch_kwargs")
    info = {**pretrain_info(model, pretraining_name), "pt_architecture_kwargs": kwargs or {}}
    _save(dataset, name, base, _content(planned), info, sort_keys=False)
    _preprocess(dataset, name, planned.data_identifier, num_processes, verbose, overwrite_pp)
    logger.info(
        "Train with: nnUNetv2_train_pretrained %s %s FOLD -tr DynamicPretrainedTrainer -p %s",
        dataset,
        CONFIGURATION,
        name,
    )
    return name


def load_pretrained(checkpoint: str) -> PretrainedModel:
    """Read a checkpoint, fetched from Hugging Face if it is given as an address; nothing in it is executed.

    Raises:
        CheckpointError: no checkpoint, or one without an adaptation plan.
        PathError, ArgumentError: see `download_checkpoint`.
    """
    from nnunet_lite.models.checkpoint import NAMED_FILE, read_checkpoint

    path = download_checkpoint(checkpoint) if "://" in checkpoint else Path(checkpoint).absolute()
    content = read_checkpoint(path, advice=NAMED_FILE)
    plan = content.get("nnssl_adaptation_plan")
    if not isinstance(plan, Mapping):
        raise CheckpointError(
            f"{path} has no 'nnssl_adaptation_plan', which says how it was pretrained; it is no nnssl checkpoint "
            "(weights of an nnU-Net go to nnUNetv2_train -pretrained_weights)"
        )
    return PretrainedModel(path, plan, content.get("citations"))


def download_checkpoint(address: str) -> Path:
    """Fetch checkpoint_final.pth and config.json of https://huggingface.co/<owner>/<repository>, unless they are here.

    Raises:
        ArgumentError: another address.
        PathError: nnssl_pretrained_models, the folder to download to, is not set.
        CheckpointError: huggingface_hub is not installed, the repository is no nnssl model or cannot be reached.
    """
    parts = urlparse(address)
    owner_and_name = [part for part in parts.path.split("/") if part][:2]
    if parts.scheme != "https" or parts.netloc != _HUGGING_FACE or len(owner_and_name) != 2:
        raise ArgumentError(f"{address!r}: expected a file or https://{_HUGGING_FACE}/<owner>/<repository>")
    repository = "/".join(owner_and_name)
    folder = Path(nnssl_pretrained_models) / repository.replace("/", "_")
    checkpoint = folder / "checkpoint_final.pth"
    if checkpoint.is_file():
        logger.info("%s was downloaded before; delete it to fetch it again", checkpoint)
        return checkpoint
    try:
        from huggingface_hub import hf_hub_download, list_repo_files
    except ImportError:
        raise CheckpointError(
            f"{address} needs the package huggingface_hub: pip install huggingface_hub; "
            "or download the checkpoint yourself and give the file"
        ) from None
    try:
        files = list_repo_files(repository)
        if "adaptation_plan.json" in files:
            for name in ("config.json", checkpoint.name):
                hf_hub_download(repo_id=repository, filename=name, local_dir=str(folder))
            return checkpoint
    except Exception as error:  # of the client's many kinds
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{address} could not be fetched ({type(error).__name__}: {reason})") from error
    raise CheckpointError(f"{address} has no adaptation_plan.json, so it is no nnssl model; it has: {', '.join(files)}")


def pretrain_info(model: PretrainedModel, pretraining_name: str) -> dict[str, Any]:
    """The block that training reads: where the weights are and which parts of the network they belong to."""
    return {
        "checkpoint_path": os.fspath(model.path),
        "checkpoint_name": pretraining_name,
        "key_to_encoder": model.needed("key_to_encoder"),
        "key_to_stem": model.needed("key_to_stem"),
        "keys_to_in_proj": model.needed("keys_to_in_proj"),
        "key_to_lpe": model.needed("key_to_lpe"),
        "pt_num_in_channels": model.needed("pretrain_num_input_channels"),
        "pt_used_patchsize": model.pretraining.get("patch_size"),
        "pt_recommended_downstream_patchsize": model.needed("recommended_downstream_patchsize"),
        "citations": model.citations,
    }


def data_identifier(spacing: Sequence[float | None], channels: int) -> str:
    """Folder of cases with this spacing (None: as it is) and z-scores: Spacing__1.00_1.00_1.00___Norm__Z_Z."""
    values = "_".join("None" if value is None else f"{value:.2f}" for value in spacing)
    return f"Spacing__{values}___Norm__{'_'.join('Z' * channels)}"


def _override(mode: str, spacing: Sequence[float] | None) -> Sequence[float | None]:
    if mode not in ADAPTATION_MODES:
        raise ArgumentError(f"adaptation mode {mode!r}: expected one of {', '.join(ADAPTATION_MODES)}")
    if mode == "no_resample":
        return [None] * 3
    if mode != "fixed":
        return []
    values = list(spacing or [])
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise ArgumentError(
            f"adaptation mode fixed needs the spacing: -os with three positive numbers in mm, not {values or 'nothing'}"
        )
    return values


def _base_plans(dataset: str) -> Path:
    """The first of the known plans that the dataset has."""
    folder = nnUNet_preprocessed / dataset
    for name in BASE_PLANS:
        if (folder / f"{name}.json").is_file():
            logger.info("%s of plans %s is adapted", CONFIGURATION, name)
            return folder / f"{name}.json"
    existing = ", ".join(available_plans(folder)) or "none"
    raise PlansError(
        f"{dataset} has none of the plans {', '.join(BASE_PLANS)} (it has: {existing}); "
        f"make them first: nnUNetv2_plan_and_preprocess -d {dataset} --no_pp"
    )


def _content(configuration: ConfigurationManager) -> dict[str, Any]:
    """A configuration with everything it inherits."""
    return {key: value for key, value in configuration.configuration.items() if key != "inherits_from"}


def _masks(dataset: str, configuration: ConfigurationManager) -> list[bool]:
    """Masks that go with z-scores: as planning decides for them; without a fingerprint as they were planned."""
    try:
        fingerprint = DatasetFingerprint.from_file(nnUNet_preprocessed / dataset / "dataset_fingerprint.json")
    except PlansError:
        return list(configuration.use_mask_for_norm)
    cropped = fingerprint.median_relative_size_after_cropping < 3 / 4
    return [cropped] * len(configuration.normalization_schemes)


def _save(
    dataset: str,
    name: str,
    base: Mapping[str, Any],
    configuration: Mapping[str, Any],
    info: Mapping[str, Any],
    *,
    sort_keys: bool,
) -> None:
    plans = {**base, "plans_name": name, "configurations": {CONFIGURATION: dict(configuration)}, "pretrain_info": info}
    file = nnUNet_preprocessed / dataset / f"{name}.json"
    save_json(plans, file, sort_keys=sort_keys)
    logger.info("Plans were saved to %s", file)


def _preprocess(
    dataset: str, plans: str, identifier: str, num_processes: int, verbose: bool, overwrite_pp: bool
) -> None:
    """Preprocess what is missing (or everything) and copy the reference labels."""
    if not (nnUNet_preprocessed / dataset / "dataset.json").is_file():
        raise PathError(f"{nnUNet_preprocessed / dataset} has no dataset.json; plan the dataset first")
    if overwrite_pp:
        FinishedCases(nnUNet_preprocessed / dataset / identifier).remove_all_but(())
    preprocess([dataset], plans, [CONFIGURATION], num_processes, verbose)
