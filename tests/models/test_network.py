"""Networks from plans: golden sizes, initialisation, and names that are not imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import PlansError
from nnunet_lite.models.network import build_network, get_network_from_plans
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.migrations import KWARGS_REQUIRING_IMPORT, UNET_MODULE, convolution_modules

COMMON: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    **convolution_modules(3),
}
PLAIN = {**COMMON, "n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2]}
RESIDUAL = {**COMMON, "n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": [1, 1]}


def build(name: str, kwargs: dict[str, Any], **options: Any) -> torch.nn.Module:
    return build_network(f"{UNET_MODULE}.{name}", kwargs, KWARGS_REQUIRING_IMPORT, 2, 3, **options)


@pytest.mark.parametrize(
    ("name", "kwargs", "parameters", "entries", "tensors"),
    [("PlainConvUNet", PLAIN, 12766, 136, 48), ("ResidualEncoderUNet", RESIDUAL, 18070, 212, 63)],
)
def test_golden_sizes(name: str, kwargs: dict[str, Any], parameters: int, entries: int, tensors: int) -> None:
    before = json.dumps(kwargs)
    network = build(name, kwargs)
    assert json.dumps(kwargs) == before
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries
    assert len(list(network.parameters())) == tensors
    outputs = network(torch.zeros(1, 2, 8, 16, 16))
    assert [tuple(o.shape) for o in outputs] == [(1, 3, 8, 16, 16), (1, 3, 8, 8, 8)]


def test_initialisation() -> None:
    network = build("ResidualEncoderUNet", RESIDUAL, deep_supervision=False)
    state = network.state_dict()
    assert not state["encoder.stages.0.blocks.0.conv2.norm.weight"].any()
    assert not state["encoder.stem.convs.0.conv.bias"].any()
    weight = state["encoder.stages.1.blocks.1.conv1.conv.weight"]
    assert weight.std() == pytest.approx((2 / (1 + 0.01**2) / (8 * 27)) ** 0.5, rel=0.1)
    assert network(torch.zeros(1, 2, 8, 16, 16)).shape == (1, 3, 8, 16, 16)


def test_upstream_signature_leaves_deep_supervision_alone() -> None:
    network = get_network_from_plans(f"{UNET_MODULE}.PlainConvUNet", PLAIN, KWARGS_REQUIRING_IMPORT, 2, 3, False)
    assert isinstance(network(torch.zeros(1, 2, 8, 16, 16)), torch.Tensor)


@pytest.mark.parametrize("module", ["unet", "residual_unet", "plain_unet"])
def test_older_module_names_are_known(module: str) -> None:
    name = f"dynamic_network_architectures.architectures.{module}.ResidualEncoderUNet"
    assert type(build_network(name, RESIDUAL, KWARGS_REQUIRING_IMPORT, 1, 2)).__name__ == "ResidualEncoderUNet"


def test_unknown_names_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "evil_network.py").write_text(f"open({str(marker)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("nnUNet_allow_foreign_architectures", raising=False)
    with pytest.raises(PlansError, match="nnUNet_allow_foreign_architectures"):
        build_network("evil_network.Net", PLAIN, KWARGS_REQUIRING_IMPORT, 1, 2)
    for name in ("evil_network.Net", "os.system", "torch.nn.Linear"):
        with pytest.raises(PlansError, match="nonlin"):
            build("PlainConvUNet", {**PLAIN, "nonlin": name})
    assert not marker.exists()
    assert "evil_network" not in sys.modules


def test_opt_in_to_foreign_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_network.py").write_text(
        "import torch\nclass Net(torch.nn.Conv2d):\n"
        "    def __init__(self, input_channels, num_classes, deep_supervision, act):\n"
        "        super().__init__(input_channels, num_classes, 1)\n        self.act = act\n"
        "class Act: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("nnUNet_allow_foreign_architectures", "1")
    network = build_network("my_network.Net", {"act": "my_network.Act"}, ["act"], 3, 2)
    assert (network.in_channels, network.out_channels, network.act.__name__) == (3, 2, "Act")
    with pytest.raises(PlansError, match="cannot be imported"):
        build_network("my_network.Net", {"act": "my_network.Nothing"}, ["act"], 3, 2)
    moved = build_network("long.gone.module.PlainConvUNet", PLAIN, KWARGS_REQUIRING_IMPORT, 1, 2)
    assert type(moved).__name__ == "PlainConvUNet"


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(PlansError, match="unexpected keyword argument 'n_layers'"):
        build("PlainConvUNet", {**PLAIN, "n_layers": 3})
    with pytest.raises(PlansError, match="single stage"):
        build("PlainConvUNet", {**PLAIN, "n_stages": 1})


@pytest.mark.parametrize("plans", ["nnUNetPlans", "nnUNetResEncUNetMPlans"])
def test_golden_plans_build(goldens: Path, plans: str) -> None:
    content = json.loads((goldens / "Dataset004_Hippocampus" / f"{plans}.json").read_text())
    configuration = ConfigurationManager(content["configurations"]["2d"])
    network = build_network(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        3,
        False,
    )
    assert network(torch.zeros(1, 1, *configuration.patch_size)).shape == (1, 3, *configuration.patch_size)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("features_per_stage", [4, -8, 8]),  # RuntimeError of torch
        ("kernel_sizes", [[1, 3, 3]]),
        ("n_conv_per_stage", []),
        ("n_stages", 2.5),
        ("features_per_stage", "many"),
    ],
)
def test_numbers_no_network_can_be_built_of(key: str, value: Any) -> None:
    with pytest.raises(PlansError, match=r"PlainConvUNet cannot be built from the plans' arch_kwargs: \w+: "):
        build("PlainConvUNet", {**PLAIN, key: value})
