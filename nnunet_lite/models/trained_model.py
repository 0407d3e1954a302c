"""A folder of trained models, `Dataset/Trainer__Plans__Configuration`: folds, weights, network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nnunet_lite.exceptions import ArgumentError, CheckpointError, PathError
from nnunet_lite.models.checkpoint import Checkpoint, copy_weights, load_checkpoint, load_weights, not_finite
from nnunet_lite.models.model_folders import FINAL as _FINAL
from nnunet_lite.models.model_folders import meant_checkpoint, meant_folder
from nnunet_lite.models.model_names import Fold, ModelName, get_output_folder, parse_fold, parse_model_folder_name
from nnunet_lite.models.trainer_network import network_of_trainer
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import PathLike, subdirs
from nnunet_lite.utilities.logging import logger

_EXAMPLES = 10  # files named in a message
_FLAGS = ("-tr", "-p", "-c")  # of the commands that ask for a model by its name's parts


class Member(NamedTuple):
    """What prediction needs of one fold."""

    fold: Fold
    trainer_name: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None
    weights: Mapping[str, Any]


class TrainedModel:
    """A model folder as training leaves it: dataset.json, plans.json, fold_X/checkpoint_final.pth.

    Args:
        folder: any place; its name plays no role.

    Raises:
        PathError: no such folder, or it holds no dataset.json and plans.json.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            what = f"{self.folder} is a file, no model folder" if self.folder.is_file() else None
            what = what or f"There is no model folder {self.folder}"
            raise PathError(f"{what}{meant_folder(self.folder) or _neighbours(self.folder)}")
        missing = [name for name in ("dataset.json", "plans.json") if not (self.folder / name).is_file()]
        if missing:
            names = sorted(entry.name for entry in self.folder.iterdir())
            held = ", ".join([*names[:_EXAMPLES], *(["..."] if len(names) > _EXAMPLES else [])]) or "nothing"
            raise PathError(
                f"{self.folder} is no model folder: it has no {' and no '.join(missing)}; it holds: {held}"
                f"{meant_folder(self.folder)}"
            )

    @staticmethod
    def find(dataset_name: str, trainer: str, plans: str, configuration: str) -> TrainedModel:
        """The model below nnUNet_results; `dataset_name` is the folder's full name.

        Raises:
            PathError: there is none; lists those of this dataset with the flags that name them.
        """
        if not Path(nnUNet_results).is_dir():
            raise PathError(
                f"nnUNet_results={nnUNet_results}: this folder does not exist; export nnUNet_results with the folder "
                "that holds your trained models"
            )
        folder = Path(get_output_folder(dataset_name, trainer, plans, configuration))
        if not folder.is_dir():
            wanted = ModelName(trainer, plans, configuration)
            raise PathError(f"There is no model folder {folder}; {_models_with_flags(folder.parent, wanted)}")
        return TrainedModel(folder)

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """dataset.json of the training."""
        return dict(DatasetJson.from_file(self.folder / "dataset.json").raw)

    @cached_property
    def plans_manager(self) -> PlansManager:
        """Plans of the training."""
        return PlansManager(self.folder / "plans.json")

    def fold_folder(self, fold: Fold) -> Path:
        """Folder of a fold."""
        return self.folder / f"fold_{parse_fold(fold)}"

    def available_folds(self, checkpoint_name: str = _FINAL) -> list[Fold]:
        """Folds that have this checkpoint, numbers in order; [`all`] where there is nothing but fold_all."""
        with_checkpoint = [
            name.removeprefix("fold_")
            for name in subdirs(self.folder, prefix="fold_", join=False)
            if (self.folder / name / checkpoint_name).is_file()
        ]
        numbers: list[Fold] = sorted(int(name) for name in with_checkpoint if name.isdecimal())
        return numbers or [name for name in with_checkpoint if name == "all"]

    def load_fold(self, fold: Fold, checkpoint_name: str = _FINAL) -> Checkpoint:
        """The whole checkpoint of a fold; its tensors stay in the file until they are used (copy those you keep).

        Raises:
            CheckpointError: there is none; names the folds and checkpoints there are.
        """
        file = self.fold_folder(fold) / checkpoint_name
        if not file.exists():
            usable = " ".join(str(fold) for fold in self.available_folds(checkpoint_name))
            advice = f"; predict with those that are there: -f {usable}" if usable else ""
            advice += meant_checkpoint([file.parent], checkpoint_name)
            raise CheckpointError(f"There is no checkpoint {file}; {self._inventory()}{advice}")
        return load_checkpoint(file, mapped=True)

    def load_members(self, folds: Fold | Sequence[Fold] | None = None, checkpoint_name: str = _FINAL) -> list[Member]:
        """What prediction needs of the given folds (None: all there are), in this order.

        Raises:
            CheckpointError: a fold or checkpoint is missing, or the folds do not belong together.
        """
        if folds is None:
            folds = self.available_folds(checkpoint_name)
            if not folds:
                advice = meant_checkpoint(map(Path, subdirs(self.folder, prefix="fold_")), checkpoint_name)
                raise CheckpointError(f"{self.folder} has no fold with {checkpoint_name}; {self._inventory()}{advice}")
        elif isinstance(folds, (int, str)):
            folds = [folds]
        members = [self._member(parse_fold(fold), checkpoint_name) for fold in folds]
        if not members:
            raise CheckpointError(f"No fold was asked for; {self._inventory()}")
        self._require_consistency(members)
        return members

    def _member(self, fold: Fold, checkpoint_name: str) -> Member:
        checkpoint = self.load_fold(fold, checkpoint_name)
        try:
            configuration, trainer = checkpoint["init_args"]["configuration"], checkpoint["trainer_name"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.fold_folder(fold) / checkpoint_name} does not say how it was trained: no {error}"
            ) from error
        axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
        if not isinstance(axes, (list, tuple)) or not set(axes) <= {0, 1, 2}:
            raise CheckpointError(
                f"{self.fold_folder(fold) / checkpoint_name}: inference_allowed_mirroring_axes is {axes}, expected "
                "spatial axes, some of (0, 1, 2), or None"
            )
        weights = copy_weights(checkpoint["network_weights"])
        return Member(fold, trainer, configuration, tuple(axes) or None, weights)

    def _require_consistency(self, members: list[Member]) -> None:
        first = members[0]
        for other in members[1:]:
            for what in ("configuration", "trainer_name", "mirroring_axes"):
                here, there = getattr(first, what), getattr(other, what)
                if here == there:
                    continue
                message = f"{self.folder}: {what} is {here} in fold {first.fold} but {there} in fold {other.fold}"
                if what != "trainer_name":
                    raise CheckpointError(f"{message}; these folds cannot be predicted together, choose with -f")
                logger.warning("%s; the network is built as the first says", message)

    def _inventory(self) -> str:
        found = [
            f"{Path(folder).name} ({', '.join(sorted(file.name for file in Path(folder).glob('*.pth'))) or 'empty'})"
            for folder in subdirs(self.folder, prefix="fold_")
        ]
        return f"{self.folder} has: {', '.join(found) or 'no folds'}"

    def load_network(self, members: Sequence[Member]) -> nn.Module:
        """The network of these members with the weights of the last; every member's are checked to fit.

        Raises:
            CheckpointError: weights do not fit; says so if that may be for want of the trainer's source.
        """
        name = members[0].trainer_name
        configuration = self.plans_manager.get_configuration(members[0].configuration)
        network, doubt = network_of_trainer(name, self.plans_manager, configuration, self.dataset_json)
        if torch.get_default_dtype() != torch.float32:  # somebody's own; images are float32
            network.float()
        try:
            for member in members:
                load_weights(network, member.weights, f"fold {member.fold} of {self.folder}")
        except CheckpointError as error:
            if doubt is None:
                raise
            raise CheckpointError(
                f"The network of this model is that of its trainer {name}, which is not here; that of the plans is "
                f"another one. Put the file that defines {name} into a folder and name it: export "
                f"nnUNet_extTrainer=/path/to/folder. In detail: {doubt}. {error}"
            ) from error
        for member in members:
            strange = not_finite(member.weights)
            if strange:
                logger.warning(
                    "Fold %s of %s: %d of its weight tensors hold NaN or infinity (%s, ...), so its training diverged; "
                    "train it again, or name another checkpoint (-chk)",
                    *(member.fold, self.folder, len(strange), strange[0]),
                )
        if doubt is not None:
            logger.warning("This model's trainer %s is not here; the network of the plans fits its weights", name)
        self._warn_of_gaps()
        return network

    def _warn_of_gaps(self) -> None:
        labels = self.plans_manager.get_label_manager(self.dataset_json)
        if labels.labels_of_channels is not None:
            logger.warning(
                "Labels of %s are not consecutive: its output channels are written as %s in this order; nnU-Net itself "
                "writes 0, 1, 2 ... instead",
                self.folder / "dataset.json",
                labels.all_labels,
            )


def _models_with_flags(dataset_folder: Path, wanted: ModelName) -> str:
    """The models of a dataset and the flags to give for each, those that need the fewest other flags first."""
    found = []
    for name in subdirs(dataset_folder, join=False) if dataset_folder.is_dir() else []:
        try:
            model = parse_model_folder_name(name)
        except ArgumentError:  # no model
            continue
        flags = [f"{flag} {has}" for flag, has, asked in zip(_FLAGS, model, wanted, strict=True) if has != asked]
        found.append((len(flags), f"{name} ({' '.join(flags)})"))
    if not found:
        train = (
            f"nnUNetv2_train {dataset_folder.name} {wanted.configuration} FOLD -tr {wanted.trainer} -p {wanted.plans}"
        )
        return f"no model of {dataset_folder.name} was trained yet: {train}"
    return f"trained were, with the flags to give: {', '.join(text for _, text in sorted(found))}"


def _neighbours(folder: Path) -> str:
    """What there is instead, one level up."""
    parent = folder.parent
    if not parent.is_dir():
        return f": there is no {parent} either"
    names = [name for name in subdirs(parent, join=False) if "__" in name]
    return f"; {parent} has: {', '.join(names) or 'no models'}"
