"""What a case will take, from its header."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.models import DATASET_JSON, tiny_plans

from nnunet_lite.inference.case_resources import (
    CaseSize,
    Demand,
    Network,
    affordable_processes,
    demand_of_case,
    number_of_tiles,
    size_of_case,
    worthwhile_processes,
)
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments
from nnunet_lite.inference.sliding_window_prediction import sliding_windows
from nnunet_lite.plans.plans_manager import PlansManager

PLANS = PlansManager(tiny_plans())
DOCUMENTS = ModelDocuments(PLANS.plans, PLANS.get_configuration("3d_fullres"), DATASET_JSON)


@pytest.mark.parametrize("patch", [(8, 8), (8, 6, 10), (64, 64, 64)])
@pytest.mark.parametrize("step", [0.5, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(9, 30, 17), (1, 64, 65), (70, 8, 8)])
def test_tiles_are_those_of_the_sliding_window(shape: tuple[int, ...], patch: tuple[int, ...], step: float) -> None:
    padded = [max(edge, tile) for edge, tile in zip(shape, (0,) * (3 - len(patch)) + patch, strict=True)]
    assert number_of_tiles(shape, patch, step) == len(sliding_windows(padded, patch, step))


def test_size_of_files(images: Path) -> None:
    files = [str(images / "b_0000.nii.gz")]  # 5 x 12 x 8 at 4 x 0.8 x 0.7 mm, the model has 1 mm
    assert size_of_case(CaseToPredict("b", files), DOCUMENTS, PLANS) == CaseSize(1, (5, 12, 8), (20, 10, 6))
    assert size_of_case(CaseToPredict("b", [str(images / "missing.nii.gz")]), DOCUMENTS, PLANS) is None
    (images / "b_0000.nii.gz").write_bytes(b"no image")
    assert size_of_case(CaseToPredict("b", files), DOCUMENTS, PLANS) is None


def test_a_header_without_a_sound_spacing(images: Path) -> None:
    file = images / "b_0000.nii.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    case = CaseToPredict("b", [str(file)])
    for spacing in (math.inf, math.nan):
        struct.pack_into("<f", content, 84, spacing)  # pixdim[2]
        file.write_bytes(gzip.compress(content))
        assert size_of_case(case, DOCUMENTS, PLANS) is None
        assert demand_of_case(case, None, DOCUMENTS, PLANS, Network(3)) == Demand()


@pytest.mark.parametrize("spacing", [None, [1, 1], [1, 0, 1], [1, math.inf, 1], [1, math.nan, 1], [1e30, 1, 1]])
def test_arrays_that_do_not_fit_have_no_size(spacing: list[float] | None) -> None:
    case = CaseToPredict("x", np.zeros((1, 4, 5, 6)), properties={"spacing": spacing})
    assert size_of_case(case, DOCUMENTS, PLANS) is None
    assert demand_of_case(case, None, DOCUMENTS, PLANS, Network(3)) == Demand()


def test_demand_grows_with_what_it_depends_on(images: Path) -> None:
    case = CaseToPredict("a", [str(images / "a_0000.nii.gz")])
    size = CaseSize(1, (100, 200, 200), (100, 200, 200))
    voxels = math.prod(size.after)

    def demand(**network: int | bool) -> Demand:
        return demand_of_case(case, size, DOCUMENTS, PLANS, Network(**{"heads": 3, **network}))

    one = demand()
    assert (one.image, one.logits) == (4 * voxels, 2 * 3 * voxels)
    assert one.network >= one.image + one.logits
    assert demand(members=2).network - one.network == one.logits
    assert demand(sums_here=False).network == one.image + one.logits
    many = demand(heads=60)
    assert many.logits == 2 * 60 * voxels and many.export > many.logits
    assert one.preprocessing == many.preprocessing > 2 * one.image
    unknown = demand_of_case(case, None, DOCUMENTS, PLANS, Network(3))
    assert unknown.preprocessing > 0 and unknown.network == 0


def test_few_small_cases_start_no_process() -> None:
    small, large = CaseSize(1, (9, 10, 11), (9, 10, 11)), CaseSize(1, (400, 512, 512), (400, 512, 512))
    assert worthwhile_processes(3, 3, [small, None], 3) == (0, 0)
    assert worthwhile_processes(3, 0, [small, large], 3) == (3, 0)
    assert worthwhile_processes(3, 2, [large], 3) == (3, 2)


@pytest.mark.parametrize(
    ("wanted", "gibibytes", "expected"),
    [
        ((3, 3), 16, (3, 3)),
        ((3, 3), 2, (2, 1)),
        ((3, 3), 0.5, (1, 0)),
        ((3, 3), 0.3, (0, 0)),
        ((0, 1), 0.5, (0, 0)),
        ((8, 0), 2, (4, 0)),
        ((2, 2), -1, (0, 0)),
    ],
)
def test_processes_leave_most_of_the_memory_to_the_cases(
    wanted: tuple[int, int], gibibytes: float, expected: tuple[int, int]
) -> None:
    assert affordable_processes(*wanted, int(gibibytes * 2**30)) == expected
