"""The whole state of a training, as a checkpoint and back: upstream's keys, and ours under `nnunet_lite`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.models.checkpoint import Checkpoint, load_weights, unwrap
from nnunet_lite.training.online_evaluation import StepOutput
from nnunet_lite.training.previous_stage import take_previous_stage_from
from nnunet_lite.utilities.logging import logger
from nnunet_lite.version import __version__

_SPEED_ONLY = ("fused", "foreach")  # how an optimizer computes, not what


def stream_seed(seed: int, rank: int, stream: int) -> int:
    """Seed of an independent stream (0 training batches, 1 validation batches) of a process."""
    return int(np.random.SeedSequence([seed, rank, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_grad_scaler() -> Any:
    """Loss scaling for float16 on CUDA, under the name this torch has for it."""
    scaler: Any = getattr(torch.amp, "GradScaler", None)
    return torch.cuda.amp.GradScaler() if scaler is None else scaler("cuda")


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's generators, which dropout and the like draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's generators back; those of a device that is not here are passed over."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's state without settings that only concern speed on this machine."""
    state = optimizer.state_dict()
    groups = [
        {key: None if key in _SPEED_ONLY[:2] else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return {**state, "param_groups": groups}


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state and keep one's own settings of speed."""
    own = [{key: group[key] for key in _SPEED_ONLY if key in group} for group in optimizer.param_groups]
    groups = [{**group, **speed} for group, speed in zip(state["param_groups"], own, strict=False)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def pack_outputs(outputs: Sequence[StepOutput]) -> dict[str, torch.Tensor]:
    """Results of training steps as one tensor per key, for a checkpoint; results of other kinds are left out."""
    if not outputs:
        return {}
    columns = {key: [output.get(key) for output in outputs] for key in outputs[0]}
    return {
        key: torch.stack([torch.as_tensor(value).detach().cpu() for value in values])
        for key, values in columns.items()
        if all(isinstance(value, (torch.Tensor, np.ndarray, np.generic, float, int)) for value in values)
    }


def unpack_outputs(packed: Mapping[str, torch.Tensor], number: int) -> list[StepOutput]:
    """The results again, one dictionary per step."""
    return [{key: values[i] for key, values in packed.items()} for i in range(number)]


def training_state(trainer: Any) -> Checkpoint:
    """Everything that is needed to go on; in the middle of an epoch the curves end with the last complete one."""
    next_epoch = trainer.current_epoch + 1
    scaler = trainer.grad_scaler
    given_up = trainer._guard.random_states  # of an iteration that is done again
    return {
        "network_weights": unwrap(trainer.network).state_dict(),
        "optimizer_state": optimizer_state(trainer.optimizer),
        "grad_scaler_state": None if scaler is None else scaler.state_dict(),
        "logging": {key: values[:next_epoch] for key, values in trainer.logger.get_checkpoint().items()},
        "_best_ema": trainer._best_ema,
        "current_epoch": next_epoch,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": type(trainer).__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        "nnunet_lite": {
            "version": __version__,
            "hyperparameters": trainer.hyperparameters(),
            "seed": trainer.seed,
            "random_states": random_states(trainer.device) if given_up is None else given_up,
            "iterations_done": len(trainer.epoch_outputs),
            "train_outputs": pack_outputs(trainer.epoch_outputs),
            "seconds_of_epoch": _seconds_of_epoch(trainer.logger.get_checkpoint(), next_epoch),
        },
    }


def _seconds_of_epoch(curves: Mapping[str, Sequence[float]], epoch: int) -> float:
    """Time spent on an epoch that has begun; 0 for one that has not."""
    starts = curves.get("epoch_start_timestamps", ())
    return time.time() - starts[epoch] if len(starts) > epoch else 0.0


def restore_training_state(trainer: Any, checkpoint: Checkpoint, source: str) -> None:
    """Put a state back, upstream's too; the device stays the trainer's own.

    Raises:
        CheckpointError: the checkpoint lacks what is needed to go on, or belongs to another network.
    """
    missing = [key for key in ("init_args", "current_epoch", "logging") if key not in checkpoint]
    if missing:
        raise CheckpointError(f"{source} cannot be continued: it has no {', '.join(missing)}; use -pretrained_weights")
    load_weights(trainer.network, checkpoint["network_weights"], source)
    trainer.my_init_kwargs = {**checkpoint["init_args"], "device": trainer.device}
    trainer.current_epoch = int(checkpoint["current_epoch"])
    trainer.logger.load_checkpoint(checkpoint["logging"])
    best = checkpoint.get("_best_ema")
    trainer._best_ema = float(best) if best is not None and np.isfinite(best) else None
    axes = checkpoint.get("inference_allowed_mirroring_axes", trainer.inference_allowed_mirroring_axes)
    trainer.inference_allowed_mirroring_axes = axes
    _restore_momenta(trainer, checkpoint.get("optimizer_state"), source)
    if trainer.grad_scaler is not None and checkpoint.get("grad_scaler_state"):
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
    own = checkpoint.get("nnunet_lite", {})
    previous = own.get("hyperparameters", {}).get("previous_stage_trainer")
    if previous is not None and trainer.previous_stage_trainer is None:
        take_previous_stage_from(trainer, previous)
    trainer.seed = own.get("seed", trainer.seed)
    trainer.epoch_outputs = unpack_outputs(own.get("train_outputs", {}), own.get("iterations_done", 0))
    trainer._seconds_before = float(own.get("seconds_of_epoch", 0.0))
    restore_random_states(own.get("random_states", {}), trainer.device)


def _restore_momenta(trainer: Any, state: Any, source: str) -> None:
    """Put the optimizer's state back; a checkpoint that was stripped of it is continued without."""
    if not state or not state.get("param_groups"):
        logger.warning("%s has no state of an optimizer, which starts afresh", source)
        return
    try:
        restore_optimizer(trainer.optimizer, state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source} cannot be continued: its optimizer is not that of {type(trainer).__name__} ({error}); "
            "continue it with the trainer that wrote it, or start anew with -pretrained_weights"
        ) from error
