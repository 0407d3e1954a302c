"""Our own flags of nnUNetv2_train: what they change in a trainer, and their part of the output folder's name."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.logging import logger

_HIGHEST_SEED = 2**63 - 1
_NAME = re.compile(
    r"(?P<trainer>.+?)(?:_e(?P<epochs>\d+))?(?:_i(?P<iterations>\d+))?(?:_lr(?P<lr>\d[\d.e+-]*))?(?:_b(?P<batch_size>\d+))?"
    r"(?:_s(?P<seed>\d+))?(?P<deterministic>_det)?"
)


class Overrides(NamedTuple):
    """Settings that take the place of a trainer's own; None and False leave them as they are."""

    epochs: int | None = None
    iterations: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    deterministic: bool = False

    def name_parts(self) -> list[str]:
        """What they add to the trainer's name: ["e20", "i100", "lr0.001", "b4", "s1", "det"]."""
        marked = ("e", self.epochs), ("i", self.iterations), ("lr", self.lr), ("b", self.batch_size), ("s", self.seed)
        return [f"{mark}{value}" for mark, value in marked if value is not None] + ["det"] * self.deterministic

    def flags(self) -> list[str]:
        """How they are given to nnUNetv2_train: ["--epochs 20", "--deterministic"]."""
        given = (
            ("--epochs", self.epochs),
            ("--iterations", self.iterations),
            ("--lr", self.lr),
            ("--batch-size", self.batch_size),
            ("--seed", self.seed),
        )
        words = [f"{flag} {value}" for flag, value in given if value is not None]
        return words + ["--deterministic"] * self.deterministic

    def require_valid(self) -> None:
        """Raise ArgumentError for a number that cannot work, with what was expected."""
        for flag, value in (
            ("--epochs", self.epochs),
            ("--iterations", self.iterations),
            ("--batch-size", self.batch_size),
        ):
            if value is not None and value < 1:
                raise ArgumentError(f"{flag} {value}: expected a whole number of at least 1")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise ArgumentError(f"--lr {self.lr}: expected a finite number above zero, for example 0.001")
        if self.seed is not None and not 0 <= self.seed <= _HIGHEST_SEED:
            raise ArgumentError(f"--seed {self.seed}: expected a whole number from 0 to {_HIGHEST_SEED}")


def trainer_and_overrides(name: str) -> tuple[str, Overrides]:
    """The trainer and its settings, of a model folder's first part: the inverse of `Overrides.name_parts`.

    nnUNetTrainer_e20_s1 -> ("nnUNetTrainer", Overrides(epochs=20, seed=1)).
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return name, Overrides()
    values = match.groupdict()
    given = Overrides(
        **{key: int(values[key]) for key in ("epochs", "iterations", "batch_size", "seed") if values[key] is not None},
        lr=None if values["lr"] is None else float(values["lr"]),
        deterministic=values["deterministic"] is not None,
    )
    return values["trainer"], given


def trainer_and_flags(name: str) -> tuple[str, list[str]]:
    """What -tr and the other flags were: nnUNetTrainer_e20_s1 -> ("nnUNetTrainer", ["--epochs 20", "--seed 1"])."""
    trainer, given = trainer_and_overrides(name)
    return trainer, given.flags()


def apply_overrides(trainer: Any, chosen: Overrides) -> None:
    """Set a trainer's attributes before `initialize`; the plans file and the plans in checkpoints stay as planned.

    `iterations` counts training batches per epoch; validation batches keep their proportion (5 to 1), at least 1.

    Raises:
        ArgumentError: a number that cannot work.
    """
    chosen.require_valid()
    if chosen.epochs is not None:
        trainer.num_epochs = chosen.epochs
    if chosen.iterations is not None:
        share = trainer.num_val_iterations_per_epoch / trainer.num_iterations_per_epoch
        trainer.num_iterations_per_epoch = chosen.iterations
        trainer.num_val_iterations_per_epoch = max(1, round(chosen.iterations * share))
    if chosen.lr is not None:
        trainer.initial_lr = chosen.lr
    if chosen.batch_size is not None:
        trainer.configuration_manager.configuration["batch_size"] = chosen.batch_size  # this trainer's own copy
    if chosen.seed is not None:
        trainer.seed = chosen.seed
    if chosen.deterministic:
        trainer.deterministic = True


def require_lr_in_use(trainer: Any) -> None:
    """After `configure_optimizers`: a trainer with a learning rate of its own would ignore --lr without a word.

    Raises:
        ArgumentError: neither an optimizer's group nor the schedule knows the learning rate that was asked for.
    """
    wanted, optimizer = trainer.overrides.lr, trainer.optimizer
    if wanted is None or optimizer is None:
        return
    known = [group.get(key) for group in getattr(optimizer, "param_groups", ()) for key in ("lr", "initial_lr")]
    known += [value for value in vars(trainer.lr_scheduler).values() if isinstance(value, float)]
    if not any(isinstance(value, float) and math.isclose(value, wanted) for value in known):
        raise ArgumentError(
            f"--lr {wanted}: {type(trainer).__name__}.configure_optimizers does not use self.initial_lr; "
            "change it there, or leave the flag out"
        )


_COMPARED = (
    "initial_lr",
    "weight_decay",
    "num_epochs",
    "num_iterations_per_epoch",
    "enable_deep_supervision",
    "deterministic",
)


def warn_of_other_settings(trainer: Any, checkpoint: dict[str, Any], source: str) -> None:
    """Before a checkpoint is continued: say what this trainer does differently from the one that wrote it.

    Raises:
        ArgumentError: it was trained with another seed than the one asked for.
    """
    own = checkpoint.get("nnunet_lite", {})
    asked, trained = trainer.overrides.seed, own.get("seed")
    if asked is not None and trained is not None and asked != trained:
        raise ArgumentError(
            f"--seed {asked}: {source} was trained with seed {trained}; continue it without --seed or with that one, "
            "or train anew in a folder of its own"
        )
    before = own.get("hyperparameters", {})
    for name in _COMPARED:
        now = getattr(trainer, name, None)
        if name in before and before[name] != now:
            logger.warning("%s was trained with %s %s; it goes on with %s", source, name, before[name], now)
