"""dataset.json and plans.json of a model folder as nobody would write them: an error of ours, or a prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import DATASET_JSON, tiny_plans, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.test_fuzzed_documents import mutated

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor

FAST = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(FAST, max_examples=3000, derandomize=False)
IMAGE = np.random.default_rng(0).normal(size=(1, 9, 10, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("fuzzed") / "model", folds=(0,))


def _try(model: Path, name: str, document: Any) -> None:
    """Load the model and predict an array; whatever is raised must be ours."""
    shutil.copyfile(model / name, model / "kept")
    (model / name).write_text(json.dumps(document))
    try:
        predictor = nnUNetPredictor(device="cpu", allow_tqdm=False, tile_step_size=1, use_mirroring=False)
        predictor.initialize_from_trained_model_folder(model, (0,))
        properties = {"spacing": [1.0, 1.0, 1.0]}
        (labels,) = predictor.predict_from_list_of_npy_arrays([IMAGE], None, [properties], None, 0, False, 0)
        assert labels.shape == IMAGE.shape[1:]
    except nnUNetError as error:
        assert str(error).strip() and len(str(error)) < 20_000
    finally:
        shutil.move(model / "kept", model / name)


@FAST
@given(document=mutated(DATASET_JSON))
def test_dataset_json(model: Path, document: Any) -> None:
    _try(model, "dataset.json", document)


@FAST
@given(document=mutated(tiny_plans()))
def test_plans(model: Path, document: Any) -> None:
    _try(model, "plans.json", document)


@pytest.mark.slow
@LONG
@given(
    document=st.one_of(
        mutated(DATASET_JSON).map(lambda d: ("dataset.json", d)), mutated(tiny_plans()).map(lambda d: ("plans.json", d))
    )
)
def test_either_thousands_of_times(model: Path, document: tuple[str, Any]) -> None:
    _try(model, *document)
