"""What a training by several processes needs so that it is the training by one process with the same whole batch.

Gradients are means over processes. A loss that is a mean over samples therefore counts by the share of the process
(`weigh_by_share`); sums that a loss divides by one another are taken over all processes (`loss.dice.sum_over_ranks`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nnunet_lite.exceptions import WorkerError, nnUNetError
from nnunet_lite.training.batch_distribution import BatchShare
from nnunet_lite.training.online_evaluation import StepOutput
from nnunet_lite.training.trainer_state import pack_outputs, stream_seed, unpack_outputs
from nnunet_lite.utilities.distributed import all_gather_objects, highest, is_distributed, rank

_OWN_STREAM = 2  # after those of training and validation batches, which all ranks share
_GO_ON, _FAILED, _STOP = range(3)  # what happens is the highest of what any process wants


def distribute(network: nn.Module, device: torch.device, find_unused_parameters: bool) -> DistributedDataParallel:
    """The network with gradients averaged over processes; batch normalization over all of them, where CUDA can.

    Args:
        find_unused_parameters: look in every iteration for parameters that no output depends on, as the heads of a
            U-Net whose deep supervision is off. Outputs that the loss leaves out need none of this.
    """
    if device.type == "cuda" and any(isinstance(module, _BatchNorm) for module in network.modules()):
        synchronised: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        network = synchronised(network)
    network.register_forward_hook(_reach_all_outputs)
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
    )


class _AllOutputs(torch.autograd.Function):
    """The outputs as they are; those that the loss leaves out get gradients of 0, which DDP waits for."""

    @staticmethod
    def forward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the outputs on."""
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the gradients on; autograd has made zeros of missing ones."""
        return gradients


def _reach_all_outputs(network: nn.Module, inputs: Any, outputs: Any) -> Any:
    if not (isinstance(outputs, (list, tuple)) and torch.is_grad_enabled()):
        return outputs
    if not all(isinstance(output, torch.Tensor) for output in outputs):
        return outputs
    apply: Callable[..., tuple[torch.Tensor, ...]] = _AllOutputs.apply
    return list(apply(*outputs))


def without_ddp(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, for forward passes that not all processes make."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def weigh_by_share(loss: Any, share: BatchShare) -> Any:
    """A loss (module or function) whose mean over processes is that over samples; the very same for equal shares."""
    weight = share.weight
    if weight == 1:
        return loss
    if isinstance(loss, nn.Module):
        loss.register_forward_hook(lambda module, arguments, value: value * weight)
        return loss

    @functools.wraps(loss)
    def weighted(*args: Any, **kwargs: Any) -> Any:
        return loss(*args, **kwargs) * weight

    return weighted


def seed_rank(seed: int, epoch: int) -> None:
    """Let ranks other than the first draw a dropout of their own; the first goes on as one process would."""
    if rank() > 0:
        torch.manual_seed(stream_seed(seed, rank(), _OWN_STREAM + epoch))


def agree(stop: bool, failure: nnUNetError | None) -> tuple[bool, nnUNetError | None]:
    """Whether all processes stop here, and of what; a request to stop explains any failure.

    Called by all of them before each iteration, so that none is left alone in it.
    """
    verdict = highest(_STOP if stop else _GO_ON if failure is None else _FAILED)
    if verdict != _FAILED:
        return verdict == _STOP, None
    messages = [message for message in all_gather_objects(None if failure is None else str(failure)) if message]
    return False, failure or WorkerError(messages[0])


def mean_over_ranks(outputs: Sequence[StepOutput]) -> list[StepOutput]:
    """Results of steps as the mean over processes; called by all of them."""
    if not is_distributed():
        return list(outputs)
    packed = all_gather_objects(pack_outputs(outputs))
    means = {key: torch.stack([one[key].double() for one in packed]).mean(0) for key in packed[0]}
    return unpack_outputs({key: mean.to(packed[0][key].dtype) for key, mean in means.items()}, len(outputs))
