"""dataset.json and plans.json as nobody would write them: an error of ours in one line or success, nothing else."""

from __future__ import annotations

import copy
import datetime
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import succeed
from helpers.datasets import make_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.experiment_planning.integrity_report import as_document, as_text
from nnunet_lite.experiment_planning.plan_and_preprocess_api import _distinct_configurations, plan_experiments
from nnunet_lite.experiment_planning.verify_dataset_integrity import check_dataset
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import determine_num_input_channels
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.plans.raw_dataset import RawDataset

NAME = "Dataset901_Tiny"
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 7, 0.5, 1.0, 1e308, -1e-9, 10**30, 65536, math.nan, math.inf, -math.inf,
    "", " ", "0", "-1", "1e5", "x", "background", "ignore", "2d", "3d_fullres", "../../x", "a/b",
    "\0", "ä\u202e", "A" * 5000,
    [], [0], [1, 2], [1, "2"], [[1, 2]], [None] * 3, [1.5, 1, 1], list(range(400)), [3, 3, 3], [0, 0, 0], [-1, 2, 3],
    {}, {"a": 1}, {"0": "CT"}, {"0": {"0": {}}},
    {"images": ["x"], "label": "y"}, {"c": {"images": ["x"], "label": "y"}},
    ".nii.gz", ".png", ".", "PlainConvUNet", "ResidualEncoderUNet", "ExperimentPlanner",
    "find_class", "DefaultPreprocessor",
]  # fmt: skip
KEYS = [
    "ignore", "background", "regions_class_order", "dataset", "overwrite_image_reader_writer", "modality",
    "inherits_from",
    "previous_stage", "next_stage", "UNet_class_name", "label_manager",
    "foreground_intensity_properties_by_modality", "",
    "n_conv_per_stage_encoder", "UNet_base_num_features", "unet_max_num_features",
    "pool_op_kernel_sizes", "conv_kernel_sizes",
    "n_conv_per_stage_decoder",
]  # fmt: skip
FAST = settings(
    max_examples=60,
    deadline=datetime.timedelta(seconds=20),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(FAST, max_examples=4000, derandomize=False)

Write = Callable[[Path, Any], None]


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """A document with one to four values replaced, removed, added, moved or wrapped."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 4))):
        container = draw(st.sampled_from(list(_containers(document)) or [[]]))
        places = list(container) if isinstance(container, dict) else list(range(len(container)))
        action = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename", "wrap", "whole"]))
        value = copy.deepcopy(draw(st.sampled_from(ODD)))
        if action == "whole" and draw(st.integers(0, 9)) == 0:
            document = value
        elif action == "add" or not places:
            if isinstance(container, dict):
                container[draw(st.sampled_from(KEYS + ["2d", "x"]))] = value
            else:
                container.append(value)
        else:
            place = draw(st.sampled_from(places))
            if action == "remove":
                del container[place]
            elif action == "rename" and isinstance(container, dict):
                container[draw(st.sampled_from(KEYS))] = container.pop(place)
            else:
                container[place] = [container[place]] if action == "wrap" else value
    return document


@st.composite
def spoiled_bytes(draw: st.DrawFn, document: Any) -> bytes:
    """The file of a document: whole, cut, with bytes that are no UTF-8, nested without end or with keys twice."""
    content = json.dumps(draw(mutated(document))).encode()
    how = draw(st.sampled_from(["whole"] * 12 + ["cut", "bytes", "nested", "twice", "number", "bom", "nothing"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:place]
    if how == "bytes":
        return content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place:]
    if how == "nested":
        depth = draw(st.sampled_from([90, 150, 2000, 200_000]))
        return b'{"labels": ' + b"[" * depth + b"]" * depth + b"}"
    if how == "twice":
        return content.replace(b"{", b'{"labels": 3, "configurations": {}, ', 1)
    if how == "number":
        return content.replace(b"1", b"1" * 6000, 1)
    return {"bom": b"\xef\xbb\xbf" + content, "nothing": b""}.get(how, content)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tiny cases, planned; the environment points there."""
    root = tmp_path_factory.mktemp("fuzzed")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        patch.delenv("nnUNet_extTrainer", raising=False)
        make_dataset(root / "nnUNet_raw", n=2, shape=(8, 10, 9), regions=True, vary=0)
        succeed("nnUNetv2_plan_and_preprocess", "-d", 901, "-npfp", 0, "--no_pp", "--no_pbar")
        shutil.copytree(root / "nnUNet_preprocessed" / NAME, root / "backup")
        shutil.copyfile(root / "nnUNet_raw" / NAME / "dataset.json", root / "dataset.json")
        yield root


def _documents(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return (json.loads((root / "dataset.json").read_text()), json.loads((root / "backup/nnUNetPlans.json").read_text()))


def _ours(function: Callable[[], object]) -> None:
    """Call it; an error of ours must be a line that can be read, any other one fails the test."""
    try:
        function()
    except nnUNetError as error:
        lines = str(error).splitlines()
        assert lines and lines[0].strip() and len(lines) < 60 and len(str(error)) < 20_000


def _restore(root: Path) -> None:
    shutil.rmtree(root / "nnUNet_preprocessed" / NAME)
    shutil.copytree(root / "backup", root / "nnUNet_preprocessed" / NAME)
    shutil.copyfile(root / "dataset.json", root / "nnUNet_raw" / NAME / "dataset.json")


def try_dataset_json(root: Path, content: bytes) -> None:
    """Check, load and plan with this dataset.json."""
    _restore(root)
    folder = root / "nnUNet_raw" / NAME
    (folder / "dataset.json").write_bytes(content)
    check = check_dataset(folder, 0, show_progress=False)
    assert as_text(check) and json.dumps(as_document([check]))
    assert not any(finding.kind == "case-failed" for finding in check.examination.findings)
    _ours(lambda: RawDataset.load(NAME))
    _ours(lambda: plan_experiments([NAME]))
    _ours(lambda: _resolve_all(root / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json", folder / "dataset.json"))


def try_plans(root: Path, content: bytes) -> None:
    """Resolve every configuration of these plans, and plan again over them."""
    _restore(root)
    file = root / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json"
    file.write_bytes(content)
    _ours(lambda: _resolve_all(file, root / "dataset.json"))
    _ours(lambda: plan_experiments([NAME]))


def _resolve_all(plans_file: Path, dataset_json: Path) -> None:
    from nnunet_lite.plans.dataset_json import DatasetJson

    document = DatasetJson.from_file(dataset_json).raw
    plans = PlansManager(plans_file)
    for attribute in _properties(PlansManager):
        _ours(lambda attribute=attribute: getattr(plans, attribute))
    _ours(lambda: plans.get_label_manager(document))
    _ours(lambda: _distinct_configurations(plans, plans.available_configurations))
    for name in plans.available_configurations:
        _ours(lambda name=name: _resolve(plans, name, document))


def _resolve(plans: PlansManager, name: str, document: Any) -> None:
    configuration = plans.get_configuration(name)
    for attribute in _properties(ConfigurationManager):
        _ours(lambda attribute=attribute: getattr(configuration, attribute))
    _ours(lambda: configuration.preprocessor_class(verbose=False))
    _ours(lambda: determine_num_input_channels(plans, configuration, document))


def _properties(kind: type) -> list[str]:
    return [name for name, value in vars(kind).items() if not name.startswith("_") and not callable(value)]


@pytest.mark.parametrize("amount", [FAST, pytest.param(LONG, marks=pytest.mark.slow)], ids=["some", "many"])
@pytest.mark.parametrize("attempt", [try_dataset_json, try_plans])
def test_fuzz(planned: Path, attempt: Callable[[Path, bytes], None], amount: settings) -> None:
    document = _documents(planned)[0 if attempt is try_dataset_json else 1]

    @amount
    @given(content=spoiled_bytes(document))
    def each(content: bytes) -> None:
        attempt(planned, content)

    each()


def test_a_thousand_generations_of_configurations(planned: Path) -> None:
    plans = _documents(planned)[1]
    for generation in range(1000):
        parent = f"c{generation - 1}" if generation else "3d_fullres"
        plans["configurations"][f"c{generation}"] = {"inherits_from": parent}
    assert PlansManager(plans).get_configuration("c999").batch_size > 0
    plans["configurations"]["3d_fullres"]["inherits_from"] = "c999"
    with pytest.raises(nnUNetError, match="circle"):
        PlansManager(plans).get_configuration("c999")
