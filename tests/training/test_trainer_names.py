"""Names of folders given in place of a trainer's."""

from __future__ import annotations

import pytest

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.overrides import Overrides
from nnunet_lite.training.trainer_names import find_trainer, split_folder_part


@pytest.mark.parametrize(
    "chosen",
    [
        Overrides(),
        Overrides(epochs=20),
        Overrides(lr=1e-05),
        Overrides(deterministic=True),
        Overrides(20, 100, 0.001, 4, 1, True),
    ],
)
def test_the_inverse_of_the_flags_of_a_name(chosen: Overrides) -> None:
    part = "_".join(("nnUNetTrainer_5epochs", *chosen.name_parts()))
    assert split_folder_part(part) == ("nnUNetTrainer_5epochs", chosen.flags())


@pytest.mark.parametrize("name", ["Unknown_e1", "nnUNetTrainer_i2_e1", "nnUNetTrainer_s", "nnUNetTrainer_5epochs"])
def test_other_names_are_trainers_as_a_whole(name: str) -> None:
    assert split_folder_part(name) == (name, [])


def test_a_folders_name_as_trainer_says_what_is_meant() -> None:
    assert find_trainer("nnUNetTrainer") is nnUNetTrainer
    with pytest.raises(ExtensionError) as caught:
        find_trainer("nnUNetTrainer_e1_i2")
    hint = ". nnUNetTrainer_e1_i2 is a folder's name: train with -tr nnUNetTrainer --epochs 1 --iterations 2"
    assert str(caught.value).startswith("There is no trainer called 'nnUNetTrainer_e1_i2'")
    assert str(caught.value).endswith(hint)
    with pytest.raises(ExtensionError, match="There is no trainer called 'nnUNetTrainer_x'") as other:
        find_trainer("nnUNetTrainer_x")
    assert "folder's name" not in str(other.value)
