"""Start a training from the weights of another one."""

from __future__ import annotations

from torch import nn

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.models.checkpoint import load_checkpoint, unwrap
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger

_HEADS = ".seg_layers."  # depend on the number of classes and start afresh


def load_pretrained_weights(network: nn.Module, fname: PathLike, verbose: bool = False) -> None:
    """Copy all weights of a checkpoint except the segmentation heads; further weights in the file are ignored.

    Raises:
        CheckpointError: a weight that the network needs is missing in the file or has another shape.
    """
    network = unwrap(network)
    given = load_checkpoint(fname)["network_weights"]
    own = network.state_dict()
    wanted = [name for name in own if _HEADS not in name]
    for name in wanted:
        if name not in given:
            raise CheckpointError(
                f"{fname} has no weights for {name}: it was trained with another network; "
                "plan both datasets with the same architecture (nnUNetv2_move_plans_between_datasets)"
            )
        if given[name].shape != own[name].shape:
            raise CheckpointError(
                f"{fname}: {name} has shape {tuple(given[name].shape)}, the network needs {tuple(own[name].shape)}; "
                "plan both datasets with the same architecture and number of channels"
            )
    network.load_state_dict({**own, **{name: given[name] for name in wanted}})
    logger.info("Starting from the weights of %s (%d of %d tensors)", fname, len(wanted), len(own))
    if verbose:
        logger.info("Copied: %s", ", ".join(wanted))
