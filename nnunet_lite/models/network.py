"""Networks from plans: the class and its arguments are names in a JSON file, so only known names are imported."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, cast

from torch import nn

from nnunet_lite.configuration import foreign_architectures_allowed
from nnunet_lite.exceptions import PlansError
from nnunet_lite.utilities.logging import logger

_ARCHITECTURES = "dynamic_network_architectures.architectures"
_BLOCKS = "dynamic_network_architectures.building_blocks.residual"

_NETWORKS = {
    f"{_ARCHITECTURES}.{module}.{name}": (f"{_ARCHITECTURES}.unet", name)
    for name in ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
    for module in ("unet", "plain_unet", "residual_unet")  # the latter two: where older releases kept them
}

_TORCH_MODULES = {
    "conv": [f"Conv{d}d" for d in (1, 2, 3)],
    "instancenorm": [f"InstanceNorm{d}d" for d in (1, 2, 3)],
    "batchnorm": [f"BatchNorm{d}d" for d in (1, 2, 3)],
    "normalization": ["GroupNorm", "LayerNorm"],
    "dropout": ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"],
    "activation": ["LeakyReLU", "ReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish"],
}

_COMPONENTS = {
    name: ("torch.nn", component)
    for module, components in _TORCH_MODULES.items()
    for component in components
    for name in (f"torch.nn.{component}", f"torch.nn.modules.{module}.{component}")
} | {f"{_BLOCKS}.{block}": (_BLOCKS, block) for block in ("BasicBlockD", "BottleneckD")}


def build_network(
    architecture_class_name: str,
    arch_kwargs: Mapping[str, Any],
    kw_requires_import: Iterable[str],
    num_input_channels: int,
    num_output_channels: int,
    deep_supervision: bool | None = True,
    allow_init: bool = True,
) -> nn.Module:
    """A freshly initialised network as described in plans (nnU-Net v2 2.8.1 behaviour, He initialisation).

    Args:
        architecture_class_name: dotted name, as it stands in plans.json.
        arch_kwargs: its arguments; not modified.
        kw_requires_import: which of them are dotted names of classes (None stays None).
        num_input_channels: image channels, and those of a previous stage.
        num_output_channels: segmentation heads.
        deep_supervision: return a list of outputs, full resolution first; None leaves what `arch_kwargs` say.
        allow_init: apply the network's own weight initialisation.

    Raises:
        PlansError: a name that is not on the list of known ones (the environment variable
            nnUNet_allow_foreign_architectures=1 lifts that), or arguments the network does not take.
    """
    arguments = dict(arch_kwargs)
    for key in kw_requires_import:
        if arguments.get(key) is not None:
            arguments[key] = _component(key, arguments[key])
    if arguments.get("n_stages") == 1:
        raise PlansError(
            f"The planned {architecture_class_name} has a single stage and so no decoder: the patch is too small; "
            "plan the dataset again, which enlarges it"
        )
    if deep_supervision is not None:
        arguments["deep_supervision"] = deep_supervision
    network_class = _network_class(architecture_class_name)
    try:
        network = network_class(input_channels=num_input_channels, num_classes=num_output_channels, **arguments)
    except Exception as error:  # of whatever kind a wrong number provokes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PlansError(f"{architecture_class_name} cannot be built from the plans' arch_kwargs: {reason}") from error
    if allow_init and hasattr(network, "initialize"):
        network.apply(network.initialize)
    return cast("nn.Module", network)


def get_network_from_plans(
    arch_class_name: str,
    arch_kwargs: Mapping[str, Any],
    arch_kwargs_req_import: Iterable[str],
    input_channels: int,
    output_channels: int,
    allow_init: bool = True,
    deep_supervision: bool | None = None,
) -> nn.Module:
    """`build_network` with upstream's argument names and order."""
    return build_network(
        arch_class_name,
        arch_kwargs,
        arch_kwargs_req_import,
        input_channels,
        output_channels,
        deep_supervision,
        allow_init,
    )


def _network_class(name: str) -> Any:
    if name in _NETWORKS:
        module, attribute = _NETWORKS[name]
        return getattr(import_module(module), attribute)
    _require_opt_in("network_class_name", name, sorted({f"{m}.{a}" for m, a in _NETWORKS.values()}))
    try:
        return _import_dotted(name)
    except (ImportError, AttributeError, ValueError):
        return _search_architectures(name)


def _component(key: str, name: Any) -> Any:
    if not isinstance(name, str):
        return name  # code, not a file, put the class itself there
    if name in _COMPONENTS:
        module, attribute = _COMPONENTS[name]
        return getattr(import_module(module), attribute)
    _require_opt_in(
        key,
        name,
        [
            "torch.nn's convolutions, norms, dropouts and activations",
            *sorted(dotted for dotted in _COMPONENTS if dotted.startswith(_BLOCKS)),
        ],
    )
    try:
        return _import_dotted(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlansError(f"The plans' {key} names {name!r}, which cannot be imported: {error}") from error


def _require_opt_in(key: str, name: str, known: list[str]) -> None:
    if not foreign_architectures_allowed():
        raise PlansError(
            f"The plans' {key} names {name!r}, which is not one of {', '.join(known)}. If you trust these plans, allow "
            "it: export nnUNet_allow_foreign_architectures=1 (code of that name is then imported and run)"
        )


def _import_dotted(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _unet_first(module_info: pkgutil.ModuleInfo) -> bool:
    return not module_info.name.endswith(".unet")


def _search_architectures(name: str) -> Any:
    """The class of that short name anywhere in dynamic_network_architectures (plans that name a moved module)."""
    short = name.rpartition(".")[2]
    package = import_module(_ARCHITECTURES)
    for module_info in sorted(pkgutil.iter_modules(package.__path__, f"{_ARCHITECTURES}."), key=_unet_first):
        try:
            found = getattr(import_module(module_info.name), short, None)
        except Exception as error:  # an optional package that is missing or broken, for example torchvision
            logger.debug("%s cannot be imported: %s", module_info.name, error)
            continue
        if found is not None:
            logger.warning("Network %s was not found; using %s.%s", name, module_info.name, short)
            return found
    raise PlansError(f"The plans' network {name!r} can neither be imported nor found in {_ARCHITECTURES}")
