"""Names of model folders and folds, there and back; no torch is needed for them."""

from __future__ import annotations

import pytest

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.models.model_names import (
    folds_string_to_tuple,
    folds_tuple_to_string,
    get_output_folder,
    model_folder_name,
    parse_dataset_trainer_plans_configuration_from_path,
    parse_model_folder_name,
)


def test_names_and_paths(nnunet_folders):
    name = model_folder_name("nnUNetTrainer", "nnUNetPlans", "3d_fullres")
    assert name == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert parse_model_folder_name(name) == ("nnUNetTrainer", "nnUNetPlans", "3d_fullres")
    pretrained = "ptPlans__mae____Spacing__1.00_1.00_1.00___Norm__Z_Z"
    assert parse_model_folder_name(f"T__{pretrained}__3d_fullres") == ("T", pretrained, "3d_fullres")
    folder = get_output_folder("Dataset001_X", "T", "P", "2d", 3)
    assert folder == str(nnunet_folders.results / "Dataset001_X" / "T__P__2d" / "fold_3")
    assert parse_dataset_trainer_plans_configuration_from_path(folder) == ("Dataset001_X", "T", "P", "2d")
    assert folds_tuple_to_string((0, 1, "all")) == "0_1_all" and folds_string_to_tuple("0_1_all") == (0, 1, "all")
    for wrong in ("nnUNetTrainer", "a__b", "____"):
        with pytest.raises(ArgumentError, match="Trainer__Plans__Configuration"):
            parse_model_folder_name(wrong)
    with pytest.raises(ArgumentError, match="lies in no model folder"):
        parse_dataset_trainer_plans_configuration_from_path("/a/b/c")
