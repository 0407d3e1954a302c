"""Functions that inference scripts written for upstream import from its utilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import nnunet_lite
from nnunet_lite.inference.data_iterators import preprocessing_iterator_fromfiles, preprocessing_iterator_fromnpy
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.inference.upstream_helpers import (
    create_lists_from_splitted_dataset_folder,
    get_labelmanager_class_from_plans,
    recursive_find_python_class,
    recursive_fix_for_json_export,
)
from nnunet_lite.models.model_names import get_output_folder
from nnunet_lite.plans.label_manager import LabelManager


def test_classes_of_the_package_and_of_a_folder(tmp_path: Path) -> None:
    package = Path(nnunet_lite.__path__[0])
    for folder, name in (
        ("training/nnUNetTrainer", "nnUNetTrainer_5epochs"),
        ("experiment_planning", "ResEncUNetPlanner"),
        ("imageio", "SimpleITKIO"),
        ("preprocessing", "DefaultPreprocessor"),
    ):
        found = recursive_find_python_class(str(package / folder), name, f"nnunet_lite.{folder.replace('/', '.')}")
        assert found.__name__ == name
        assert recursive_find_python_class(str(package / folder), "Nobody", "nnunet_lite") is None
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.py").write_text("class Mine:\n    answer = 42\n")
    assert recursive_find_python_class(tmp_path, "Mine", "below").answer == 42
    assert recursive_find_python_class(tmp_path, "Yours", "below") is None


def test_a_dict_becomes_fit_for_json() -> None:
    content = {"a": np.float32(1), "b": (np.int64(2), [np.bool_(True)]), 3: {"device": torch.device("cpu")}}
    assert recursive_fix_for_json_export(content) is None
    assert json.loads(json.dumps(content)) == {"a": 1.0, "b": [2, [True]], "3": {"device": "cpu"}}


def test_files_of_each_case(images: Path) -> None:
    expected = [[str(images / f"{name}_0000.nii.gz")] for name in "abc"]
    assert create_lists_from_splitted_dataset_folder(str(images), ".nii.gz") == expected
    assert create_lists_from_splitted_dataset_folder(images, ".nii.gz", ["c", "a"]) == [expected[2], expected[0]]


def test_class_of_the_labels() -> None:
    assert get_labelmanager_class_from_plans({"configurations": {}}) is LabelManager


def test_folder_of_a_model_by_id(nnunet_folders) -> None:
    (nnunet_folders.results / "Dataset004_Hippocampus").mkdir(parents=True)
    expected = nnunet_folders.results / "Dataset004_Hippocampus" / "T__P__2d" / "fold_all"
    for dataset in (4, "4", "Dataset004_Hippocampus"):
        assert get_output_folder(dataset, "T", "P", "2d", "all") == str(expected)


def test_iterators(model: Path, images: Path) -> None:
    pytest.importorskip("SimpleITK")
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(model, 0)
    managers = {
        "plans_manager": predictor.plans_manager,
        "dataset_json": predictor.dataset_json,
        "configuration_manager": predictor.configuration_manager,
        "num_processes": 2,
    }
    files = [[str(images / f"{name}_0000.nii.gz")] for name in "ab"]
    expected = predictor.predict_from_files_sequential(images, None)[:2]
    of_files = preprocessing_iterator_fromfiles(files, None, None, **managers, pin_memory=False, verbose=False)
    reader = predictor.plans_manager.image_reader_writer_class()
    arrays, properties = zip(*(reader.read_images(own) for own in files), strict=True)
    of_arrays = preprocessing_iterator_fromnpy(arrays, None, list(properties), None, **managers)
    for items in (of_files, of_arrays):
        results = predictor.predict_from_data_iterator(items, num_processes_segmentation_export=0)
        for ours, wanted in zip(results, expected, strict=True):
            assert np.array_equal(ours, wanted)
