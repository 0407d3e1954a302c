"""Weights of another training: what is loaded, what is said, what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_training

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.load_pretrained_weights import FRESH, LOADED, UNUSED, load_pretrained_weights


def _network(channels: int = 1, classes: int = 3, features: Sequence[int] = (4, 8, 8), seed: int = 0) -> Any:
    configuration = PlansManager(tiny_training.plans()).get_configuration("2d")
    arguments = {**configuration.network_arch_init_kwargs, "features_per_stage": list(features)}
    torch.manual_seed(seed)
    names = (configuration.network_arch_class_name, arguments, configuration.network_arch_init_kwargs_req_import)
    return build_network(*names, channels, classes, True)


def _save(path: Path, weights: Any, **more: Any) -> Path:
    torch.save({"network_weights": weights, **more}, path)
    return path


def test_everything_but_the_heads(tmp_path: Path) -> None:
    given, own = _network(classes=5, seed=1), _network(seed=2)
    heads = {name: tensor.clone() for name, tensor in own.state_dict().items() if ".seg_layers." in name}
    lines: list[str] = []
    weights = {
        f"module.{name}": tensor for name, tensor in {**given.state_dict(), "extra.weight": torch.ones(3)}.items()
    }
    file = _save(tmp_path / "a.pth", weights)
    table = load_pretrained_weights(own, file, log=lines.append)
    after, expected = own.state_dict(), given.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in after if name not in heads)
    assert all(torch.equal(after[name], tensor) for name, tensor in heads.items())
    states = [row.status for row in table]
    assert (states.count(LOADED), states.count(FRESH), states.count(UNUSED)) == (24, 4, 1)
    assert any("not used" in line and "extra.weight" in line and "- <- (3,)" in line for line in lines)
    assert any("fresh" in line and "decoder.seg_layers.0.weight" in line and "(5, 8, 1, 1)" in line for line in lines)
    assert any("loaded" in line and "encoder.stages.0.0.convs.0.conv.weight  (4, 1, 3, 3)" in line for line in lines)
    assert sum("encoder.stages.0.0.convs.0.conv.weight" in line for line in lines) == 1, "each tensor once"


def test_a_file_that_keeps_each_tensor_once(tmp_path: Path) -> None:
    given, own = _network(seed=1), _network(seed=2)
    once = dict(given.named_parameters())
    load_pretrained_weights(own, _save(tmp_path / "a.pth", once))
    assert torch.equal(own.state_dict()["decoder.encoder.stages.0.0.convs.0.conv.weight"], next(iter(once.values())))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"channels": 2}, ["2 input channels, this network has 1", "(4, 2, 3, 3) in the file, (4, 1, 3, 3) needed"]),
        ({"features": (4, 8, 16)}, ["have another shape", "(16, 8, 3, 3) in the file", "move_plans"]),
        ({"features": (4, 8)}, ["stages.2", "missing"]),
    ],
)
def test_other_networks(tmp_path: Path, given: dict[str, Any], words: list[str]) -> None:
    own = _network(seed=2)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    if len(given.get("features", "123")) == 2:
        weights = {name: tensor for name, tensor in _network().state_dict().items() if "stages.2" not in name}
    else:
        weights = _network(**given).state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_pretrained_weights(own, _save(tmp_path / "a.pth", weights))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


def test_nothing_in_common(tmp_path: Path) -> None:
    weights = {"backbone.layer1.weight": torch.ones(3), "epoch": torch.tensor(3)}
    with pytest.raises(CheckpointError, match=r"none of the 24 weights .* holds backbone.layer1.weight, epoch"):
        load_pretrained_weights(_network(), _save(tmp_path / "a.pth", weights))


class _Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\x00" * 100, r"no checkpoint, or a damaged one; give a \.pth file such as fold_0/checkpoint_final\.pth$"),
        ({"state_dict": {}}, "no 'network_weights'"),
        (_Malicious(), "could run code"),
        (None, "There is no checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=words):
        load_pretrained_weights(_network(), file)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_upstream(goldens: Path) -> None:
    files = sorted(goldens.rglob("checkpoint_final.pth"))
    if not files:
        pytest.skip("no checkpoint among the recordings")
    arguments = load_checkpoint(files[0])["init_args"]
    configuration = PlansManager(arguments["plans"]).get_configuration(arguments["configuration"])
    names = (configuration.network_arch_class_name, configuration.network_arch_init_kwargs)
    network = build_network(*names, configuration.network_arch_init_kwargs_req_import, 1, 7, True)
    table = load_pretrained_weights(network, files[0])
    assert {row.status for row in table} == {LOADED, FRESH}
