"""The network of a trained model: from the plans wherever they describe it, else from the trainer that built it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from torch import nn

from nnunet_lite.exceptions import ExtensionError, nnUNetError
from nnunet_lite.extensions import builtin_file, find_class
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import determine_num_input_channels
from nnunet_lite.plans.plans_manager import PlansManager

_BASE_TRAINER = "nnUNetTrainer"
_HOOK = "build_network_architecture"


class TrainerNetwork(NamedTuple):
    """A network without deep supervision, and why its trainer could not be asked for it (None: no doubt about it)."""

    network: nn.Module
    doubt: str | None


def network_of_trainer(
    trainer_name: str,
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> TrainerNetwork:
    """The network that a trainer builds; straight from the plans where nobody has that trainer.

    Built-in trainers that build from the plans are not even imported: prediction needs nothing of training then.

    Raises:
        ExtensionError: a trainer of the user's fails to build it.
    """
    channels = determine_num_input_channels(plans_manager, configuration, dataset_json)
    heads = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
    architecture = (
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
    )
    trainer, doubt = None, None
    if not builds_from_plans(trainer_name):
        try:
            trainer = find_class("trainer", trainer_name)
        except ExtensionError as error:
            doubt = str(error)
    if trainer is None:
        return TrainerNetwork(build_network(*architecture, channels, heads, deep_supervision=False), doubt)
    build = getattr(trainer, _HOOK)
    names = inspect.signature(build).parameters
    arguments: tuple[Any, ...] = (*architecture, channels, heads)  # 2.3 to 2.7
    if "plans_manager" in names:
        arguments = (plans_manager, configuration, channels, heads)
    if "dataset_json" in names:  # 2.0 to 2.2
        arguments = (plans_manager, dataset_json, configuration, channels)
    try:
        return TrainerNetwork(cast("nn.Module", build(*arguments, enable_deep_supervision=False)), None)
    except nnUNetError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ExtensionError(f"{_HOOK} of the trainer {trainer_name} failed: {reason}") from error


def builds_from_plans(trainer_name: str) -> bool:
    """Whether a built-in trainer leaves the network to the plans; decided by reading its source, without running it."""
    pending = [trainer_name]
    while pending:
        name = pending.pop()
        if name == _BASE_TRAINER:
            continue
        file = builtin_file("trainer", name)
        if file is None:
            return False
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                if any(isinstance(item, ast.FunctionDef) and item.name == _HOOK for item in node.body):
                    return False
                pending += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return True
