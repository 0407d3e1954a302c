"""Numbers that go wrong in training: NaN and infinity are kept from the weights, tried again in float32, and explained.

On a CPU loss and gradients are looked at before the update. A GPU is not waited for: the update is skipped on the
device (`found_inf`, the mechanism of GradScaler and fused optimizers), the flags follow the host by a copy that blocks
nothing, and are read when the next iteration has been launched. All ranks of a group decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunet_lite.exceptions import NumericalError
from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.training.cause_of_fault import first_lost_weight, report_cause
from nnunet_lite.utilities.distributed import is_distributed

# float16: a scale that is too large gives infinite gradients of a finite loss; the scaler then skips the update and
# halves the scale. After so many in a row (2^16 down to 2^-14) the scale is not the reason.
SKIPS_OF_A_SCALER = 30


class Attempt(NamedTuple):
    """A training iteration whose numbers may be wrong."""

    epoch: int
    iteration: int
    cases: Sequence[str]
    data: Tensor
    target: Any
    loss: Tensor  # the one that train_step returns
    flags: Tensor  # float32 (2,): 1 where the loss, the norm of the gradients is not finite
    copied: Any  # event after which `flags` can be read; None where they can be at once

    def __str__(self) -> str:
        cases = f" (cases {', '.join(self.cases)})" if self.cases else ""
        return f"Epoch {self.epoch}, iteration {self.iteration}{cases}"


class FiniteUpdates:
    """Updates the weights of a trainer if loss and gradients are finite.

    Args:
        trainer: offers `compute_gradients(data, target, in_float32)`, which leaves clipped gradients behind and returns
            loss and norm of the gradients, and the attributes of nnUNetTrainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._pending: Attempt | None = None
        self._skipped = 0  # updates in a row that a GradScaler left out

    def step(self, data: Tensor, target: Any, cases: Sequence[str] = ()) -> Tensor:
        """One training iteration; returns its loss, which a later repetition in float32 corrects in place.

        Raises:
            NumericalError: this iteration or the one before is not finite in float32 either; the weights are untouched.
        """
        trainer = self._trainer
        buffers = _Buffers(trainer.network)
        gradients: tuple[Tensor, Tensor] = trainer.compute_gradients(data, target)
        loss, flags = gradients[0], _flags(*gradients)
        where = (trainer.current_epoch, len(trainer.epoch_outputs), [str(case) for case in cases])
        attempt = Attempt(*where, data, target, loss, flags, None)
        scaler, optimizer = trainer.grad_scaler, trainer.optimizer
        if scaler is not None:
            _create_momentum(optimizer)
            scaler.step(optimizer)
            scaler.update()
        elif self.decides_on_device():
            _create_momentum(optimizer)
            _step_unless(flags, optimizer)
        elif bool(flags.any()):
            buffers.restore()
            self._repeat(attempt)
            return loss
        else:
            optimizer.step()
            return loss
        buffers.restore_where(flags.any())
        before, self._pending = self._pending, _copy_flags(attempt)
        self._judge(before)
        return loss

    def decides_on_device(self) -> bool:
        """Whether the update can be skipped without the host: on CUDA, with an optimizer made for it."""
        return self._trainer.device.type == "cuda" and _is_fused(self._trainer.optimizer)

    def settle(self) -> None:
        """Wait for the last iteration and judge it: before its results are used, and before the state is saved."""
        before, self._pending = self._pending, None
        self._judge(before)

    def left_out(self) -> int | None:
        """Number of the last iteration if it is not judged yet and must be repeated: for whoever saves just now."""
        attempt = self._pending
        if attempt is None or not self._must_be_repeated(*_judged(attempt), self._skipped):
            return None
        return attempt.iteration

    def _judge(self, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        loss_bad, norm_bad = _judged(attempt)
        repeated = self._must_be_repeated(loss_bad, norm_bad, self._skipped)
        self._skipped = self._skipped + 1 if norm_bad else 0
        if repeated:
            self._repeat(attempt)

    def _must_be_repeated(self, loss_bad: bool, norm_bad: bool, skipped: int) -> bool:
        """Whether an update was left out; a GradScaler that leaves out `skipped` before this one mends it itself."""
        scaler_does_it = self._trainer.grad_scaler is not None and not loss_bad and skipped + 1 < SKIPS_OF_A_SCALER
        return (loss_bad or norm_bad) and not scaler_does_it

    def _repeat(self, attempt: Attempt) -> None:
        """The same batch in float32; the update is made if that is finite, else the training stops."""
        trainer = self._trainer
        buffers = _Buffers(trainer.network)
        loss, norm = trainer.compute_gradients(attempt.data, attempt.target, in_float32=True)
        flags = _flags(loss, norm)
        if bool(flags.any()):
            buffers.restore()
            self._stop(attempt, "loss" if bool(flags[0]) else "gradient")
        trainer.optimizer.step()
        with torch.no_grad():
            attempt.loss.copy_(loss)
        trainer.print_to_log_file(f"{attempt}: loss or gradients were not finite; repeated in float32, where they are")

    def _stop(self, attempt: Attempt, what: str) -> NoReturn:
        trainer = self._trainer
        buffers = _Buffers(trainer.network)
        cause = report_cause(trainer.network, trainer.loss, attempt.data, attempt.target, attempt.cases)
        buffers.restore()
        trainer.optimizer.zero_grad(set_to_none=True)
        del trainer.epoch_outputs[attempt.iteration :]  # --c begins with the iteration that failed
        message = f"{attempt}: the {what} is not finite, in float32 neither: {cause.what}. {cause.advice}. "
        if first_lost_weight(trainer.network) is not None:
            trainer._close_dataloaders()
            raise NumericalError(message + _kept(trainer))
        trainer._save_interrupted()
        saved = "" if trainer.disable_checkpointing else "The state before it is saved, --c goes on from there"
        raise NumericalError(message + saved)


def _judged(attempt: Attempt) -> tuple[bool, bool]:
    """Whether the loss, and the norm of the gradients, are not finite; waits for the copy from the device."""
    if attempt.copied is not None:
        attempt.copied.synchronize()
    loss_bad, norm_bad = (value != 0 for value in attempt.flags.tolist())
    return loss_bad, norm_bad


def require_finite_weights(trainer: Any) -> None:
    """End a training whose weights are lost (by a train_step of the user's), before a checkpoint of them is written.

    Raises:
        NumericalError: names the first weight and says which checkpoints are good.
    """
    lost = first_lost_weight(trainer.network)
    if lost is not None:
        trainer._close_dataloaders()
        raise NumericalError(
            f"Epoch {trainer.current_epoch}: the weights are lost, {lost} is not finite. "
            f"Lower the learning rate (--lr). {_kept(trainer)}"
        )


def _kept(trainer: Any) -> str:
    return f"Nothing was saved; the checkpoints in {trainer.output_folder}, if any, are from before"


def _flags(loss: Tensor, norm: Tensor) -> Tensor:
    """float32 (2,), on the device: 1 where loss, norm is not finite, on any rank."""
    with torch.no_grad():
        finite = torch.stack([torch.isfinite(loss).all(), torch.isfinite(norm).to(loss.device)])
        flags = (~finite).float()
        if is_distributed():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags


def _is_fused(optimizer: Any) -> bool:
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _step_unless(flags: Tensor, optimizer: Any) -> None:
    """Let a fused optimizer update the weights, unless a flag says no; decided on the device."""
    optimizer.grad_scale, optimizer.found_inf = None, flags.amax()
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale, optimizer.found_inf


def _create_momentum(optimizer: Any) -> None:
    """Give a fused SGD its momentum, all zeros, before the first step: the same numbers without dampening.

    torch allocates it in the first step and leaves it as it is found in memory if that step is skipped.
    """
    if not (isinstance(optimizer, torch.optim.SGD) and _is_fused(optimizer)) or len(optimizer.state) > 0:
        return
    for group in optimizer.param_groups:
        if group["momentum"] != 0 and group["dampening"] == 0:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _copy_flags(attempt: Attempt) -> Attempt:
    """The attempt with its flags on their way to the host."""
    if attempt.flags.device.type != "cuda":
        return attempt
    flags = attempt.flags.to("cpu", non_blocking=True)
    make_event: Any = torch.cuda.Event  # untyped in torch
    copied = make_event()
    copied.record()
    return attempt._replace(flags=flags, copied=copied)


class _Buffers:
    """Running statistics of a network (batch normalization), which a forward pass of NaN would spoil."""

    def __init__(self, network: nn.Module) -> None:
        self._buffers = list(unwrap(network).buffers())
        self._before = [buffer.detach().clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def restore_where(self, bad: Tensor) -> None:
        """Put them back if `bad` is true, decided on the device."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(bad, before, buffer))
