"""What the command says about a pretraining, written into the plans that a training starts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError

_SUFFIX = "__from_scratch"  # of the plans' name, and so of the folder with the results
_KEY = "from_scratch"


class PretrainingChoice(NamedTuple):
    """Flags of nnUNetv2_train_pretrained.

    from_scratch: the same training without the weights, for comparison; its results get a folder of their own.
    checkpoint: a file to use instead of the one that the plans name.
    """

    from_scratch: bool = False
    checkpoint: str | None = None

    def apply(self, plans: Mapping[str, Any]) -> dict[str, Any]:
        """Plans with this choice in them; the given ones stay as they are."""
        info = plans.get("pretrain_info")
        if self.checkpoint is not None and isinstance(info, Mapping):
            info = {**info, "checkpoint_path": self.checkpoint}
        if not self.from_scratch:
            return {**plans, "pretrain_info": info}
        block = {**info} if isinstance(info, Mapping) else {}
        name = f"{plans.get('plans_name', '')}{_SUFFIX}"
        return {**plans, "plans_name": name, "pretrain_info": {**block, _KEY: True}}


def require_pretrained_trainer(trainer_class: type) -> None:
    """Check that a trainer loads pretrained encoders at all. Raises ArgumentError."""
    if not hasattr(trainer_class, "load_pretraining"):
        raise ArgumentError(
            f"-tr {trainer_class.__name__} starts from no pretraining; use PretrainedTrainer, DynamicPretrainedTrainer "
            "or one derived from them (or nnUNetv2_train for a training without)"
        )


def starts_from_scratch(plans: Mapping[str, Any]) -> bool:
    """Whether these plans say that a pretraining is not to be used."""
    info = plans.get("pretrain_info")
    return isinstance(info, Mapping) and bool(info.get(_KEY, False))
