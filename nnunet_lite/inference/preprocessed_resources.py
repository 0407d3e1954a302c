"""What a case will take that is preprocessed already: its bytes in the network and in its export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_lite.inference.case_resources import CaseSize, Demand, Network, demand_of_case
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments
from nnunet_lite.plans.plans_manager import PlansManager


def demand_of_preprocessed(
    shape: Sequence[int], properties: Mapping[str, Any], documents: ModelDocuments, network: Network
) -> Demand:
    """Bytes of each step but preprocessing.

    Args:
        shape: (c, x, y, z) of the preprocessed image, with the channels of a previous stage.
        properties: of the case.
        documents: of the model.
        network: see there.
    """
    before = tuple(int(edge) for edge in properties["shape_before_cropping"])
    channels, *after = (int(edge) for edge in shape)
    size = CaseSize(channels, before, tuple(after))
    demand = demand_of_case(CaseToPredict("", ()), size, documents, PlansManager(documents.plans), network)
    return demand._replace(preprocessing=0)


def demand_of_item(item: Any, documents: ModelDocuments, network: Network) -> Demand:
    """The same for what a data iterator yields: `data` (an array or a `.npy` file) and `data_properties`.

    Nothing is known of an error, or of an item in which something is missing: whoever predicts it says what is wrong.
    """
    try:
        data = item["data"]
        shape = np.load(data, mmap_mode="r").shape if isinstance(data, str) else data.shape
        return demand_of_preprocessed(shape, item["data_properties"], documents, network)
    except (KeyError, TypeError, AttributeError, ValueError, OSError):
        return Demand()
