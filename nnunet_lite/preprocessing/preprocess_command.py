"""The command that makes the preprocessed cases of a folder, for messages that ask for it."""

from __future__ import annotations

from pathlib import Path

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.plans_manager import available_plans, load_plans
from nnunet_lite.utilities.files import PathLike

_DEFAULT = "nnUNetPlans"


def preprocess_command(folder: PathLike) -> str:
    """nnUNetv2_preprocess with the flags that fill nnUNet_preprocessed/DatasetXXX_Name/<data_identifier>.

    Flags that nothing on the disk tells are left out.
    """
    folder = Path(folder)
    dataset = folder.parent
    if not dataset.name.startswith("Dataset"):
        return "nnUNetv2_preprocess"
    command = f"nnUNetv2_preprocess -d {dataset.name}"
    for name in sorted(available_plans(dataset), key=lambda plans: plans != _DEFAULT):
        try:
            configurations = load_plans(dataset / f"{name}.json")["configurations"]
        except PlansError:
            continue
        for configuration, content in configurations.items():
            if content.get("data_identifier") == folder.name:
                plans = "" if name == _DEFAULT else f" -plans_name {name}"
                return f"{command}{plans} -c {configuration}"
    return command
