"""Preprocess random edge cases by both sides and compare: shapes down to one voxel, 2D, thick slices, transposed axes,
every normalization with and without mask, zero, constant and partly empty images, regions, ignore label, float labels.

Data must agree within 1e-5 of the channel's range, labels everywhere; a voxel where two labels weigh the same to within
rounding may go either way. Where upstream fails (an axis shrinks to nothing) ours must do something sensible.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench

WORK = """
import pickle, sys, traceback
IMPORTS
cases, results = pickle.load(open(sys.argv[1], "rb")), []
for case in cases:
    try:
        plans = PlansManager(case["plans"])
        seg = None if case["seg"] is None else as_taken(case["seg"])
        results.append(DefaultPreprocessor(verbose=False).run_case_npy(
            case["data"].copy(), seg, dict(case["properties"]), plans, plans.get_configuration("chosen"),
            case["dataset_json"]))
    except Exception as error:
        results.append(type(error).__name__ + ": " + " ".join(str(error).split())[:150])
pickle.dump(results, open(sys.argv[2], "wb"))
"""
IMPORTS = {
    "upstream": "from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor\n"
    "from nnunetv2.utilities.plans_handling.plans_handler import PlansManager\n"
    "as_taken = lambda seg: seg.astype('int16') if seg.dtype == 'uint8' else seg.copy()  # its readers give no uint8",
    "ours": "from nnunet_lite.preprocessing.default_preprocessor import DefaultPreprocessor\n"
    "from nnunet_lite.plans.plans_manager import PlansManager\n"
    "as_taken = lambda seg: seg.copy()",
}
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
LABELS: tuple[dict[str, Any], ...] = (
    {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}},
    {"labels": {"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}},
    {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edge": 3}, "regions_class_order": [1, 2, 3]},
    {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2], "edge": 3, "ignore": 4},
        "regions_class_order": [1, 2, 3],
    },
)


def blobs(rng: np.random.Generator, shape: tuple[int, ...], values: int) -> np.ndarray:
    """Labels 0 ... values in a few balls, as (1, x, y, z)."""
    seg = np.zeros(shape, np.int16)
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for _ in range(rng.integers(1, 8)):
        centre, radius = [rng.uniform(0, n) for n in shape], rng.uniform(0.1, 0.5) * max(shape)
        inside = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2
        seg[inside] = rng.integers(0, values + 1)
    return seg[None]


def make_case(seed: int) -> dict[str, Any]:
    """One random case with plans and dataset.json."""
    rng = np.random.default_rng(seed)
    flat = rng.random() < 0.2
    shape = (
        tuple(int(n) for n in rng.integers(1, 40, 3)) if rng.random() < 0.5 else tuple(rng.integers(8, 30, 3).tolist())
    )
    shape = (1, *shape[1:]) if flat else shape
    channels = int(rng.integers(1, 4))
    data = rng.normal(100, 40, (channels, *shape)).astype(np.float32).clip(1, 250)
    kind = rng.choice(["full", "border", "holes", "zero", "constant", "sparse"], p=[0.25, 0.35, 0.2, 0.05, 0.05, 0.1])
    if kind == "zero":
        data[:] = 0
    elif kind == "constant":
        data[:] = 7
    elif kind == "border":
        box = tuple(slice(int(rng.integers(0, n // 3 + 1)), n - int(rng.integers(0, n // 3 + 1))) for n in shape)
        kept = np.zeros(shape, bool)
        kept[box] = True
        data *= kept
    elif kind in ("holes", "sparse"):
        data *= rng.random(shape) < (0.8 if kind == "holes" else 0.05)
    if rng.random() < 0.3:
        data = data.round()
    document = LABELS[rng.integers(len(LABELS))]
    values = 4 if "ignore" in document["labels"] else 3
    seg: np.ndarray | None = blobs(rng, shape, values)
    if rng.random() < 0.15:
        seg = rng.integers(0, values + 1, (1, *shape)).astype(np.int16)
    elif rng.random() < 0.1:
        seg = None
    if seg is not None:
        seg = seg.astype(rng.choice(["uint8", "int16", "float32", "int32"]))
    spacing = rng.choice([0.5, 0.7, 0.8, 1.0, 1.0, 1.25, 3.0, 3.5, 6.5], 3)
    target = rng.choice([0.5, 0.8, 1.0, 1.0, 1.1, 1.5, 2.0, 3.0, 5.0], 3)
    if rng.random() < 0.2:
        target = spacing.copy()
    transpose = [0, 1, 2] if flat else rng.permutation(3).tolist()
    if flat:
        spacing = np.array([999 * spacing[1:].max(), *spacing[1:]])
    two = flat or rng.random() < 0.2
    intensities = {
        str(c): {"mean": 100.0, "std": 38.0, "percentile_00_5": 12.0, "percentile_99_5": 210.0} for c in range(channels)
    }
    kwargs = {"order_z": 0, "force_separate_z": None}
    schemes = rng.choice(SCHEMES, channels).tolist()
    configuration = {
        "data_identifier": "x",
        "architecture": {"network_class_name": "x", "arch_kwargs": {}, "_kw_requires_import": []},
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": (target[1:] if two else target).tolist(),
        "normalization_schemes": schemes,
        "use_mask_for_norm": [bool(rng.random() < 0.4) and scheme == SCHEMES[0] for scheme in schemes],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **kwargs},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **kwargs},
    }
    if rng.random() < 0.25:
        torch_kwargs = {"force_separate_z": None, "memefficient_seg_resampling": bool(rng.random() < 0.5)}
        configuration |= {
            "resampling_fn_data": "resample_torch_fornnunet",
            "resampling_fn_seg": "resample_torch_fornnunet",
            "resampling_fn_data_kwargs": {"is_seg": False, **torch_kwargs},
            "resampling_fn_seg_kwargs": {"is_seg": True, **torch_kwargs},
        }
    plans = {
        "dataset_name": "Dataset999_X",
        "plans_name": "nnUNetPlans",
        "transpose_forward": transpose,
        "transpose_backward": np.argsort(transpose).tolist(),
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": intensities,
        "configurations": {"chosen": configuration},
    }
    document = {**document, "channel_names": {str(c): "x" for c in range(channels)}, "file_ending": ".nii.gz"}
    properties = {"spacing": [float(s) for s in spacing]}
    return {"data": data, "seg": seg, "properties": properties, "plans": plans, "dataset_json": document, "kind": kind}


def compare(case: dict[str, Any], theirs: Any, ours: Any) -> str:
    """What differs, or nothing."""
    if isinstance(theirs, str) or isinstance(ours, str):
        said = [result if isinstance(result, str) else f"shape {result[0].shape}" for result in (theirs, ours)]
        return f"upstream: {said[0]}; ours: {said[1]}"
    (data, seg, properties), (our_data, our_seg, our_properties) = theirs, ours
    if data.shape != our_data.shape:
        return f"shape {data.shape}, ours {our_data.shape}"
    found = []
    scale = max(1.0, float(np.abs(data).max()))
    error = float(np.abs(data - our_data).max()) / scale
    if not error < 1e-5:
        found.append(f"data differ by {error:.1e} of {scale:.3g}")
    if case["seg"] is not None:
        if (different := int((seg != our_seg).sum())) > 0:
            found.append(f"{different} of {seg.size} labels differ")
        if seg.dtype != our_seg.dtype:
            found.append(f"label type {seg.dtype}, ours {our_seg.dtype}")
        theirs_at, ours_at = properties.pop("class_locations"), our_properties.pop("class_locations")
        if list(theirs_at) != list(ours_at):
            found.append(f"class_locations of {list(theirs_at)}, ours {list(ours_at)}")
        elif not found and any(not np.array_equal(theirs_at[key], ours_at[key]) for key in theirs_at):
            found.append("class_locations differ")
    for key, value in properties.items():
        if not np.array_equal(np.asarray(value), np.asarray(our_properties.get(key))):
            found.append(f"{key} {value}, ours {our_properties.get(key)}")
    return "; ".join(found)


def main() -> None:
    """Compare the number of cases asked for."""
    bench = Bench(
        __doc__, ("--cases", {"type": int, "default": 200}), ("--seed", {"type": int, "default": 0}), repeats=1
    )
    cases = [make_case(bench.args.seed + index) for index in range(bench.args.cases)]
    source = bench.work / "cases.pkl"
    source.write_bytes(pickle.dumps(cases))
    results = []
    for side in bench.pair():
        target = Path(side.folder / "cases.pkl")
        side.run("python", "-c", WORK.replace("IMPORTS", IMPORTS[side.name]), str(source), str(target))
        results.append(pickle.loads(target.read_bytes()))
    differences = {
        index: found for index, pair in enumerate(zip(*results, strict=True)) if (found := compare(cases[index], *pair))
    }
    for index, found in differences.items():
        case = cases[index]
        function = case["plans"]["configurations"]["chosen"]["resampling_fn_seg"]
        print(f"case {bench.args.seed + index} ({case['kind']}, {case['data'].shape}, {function}): {found}")
    print(f"{len(cases) - len(differences)} of {len(cases)} cases agree")


if __name__ == "__main__":
    main()
