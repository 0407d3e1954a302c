"""A gray image of 20000 x 20000 pixels, predicted by a tiny 2D network: peak memory and the time of each phase.

Upstream is not run: it would hold the image times the classes several times over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, MIB, machine, measure, remove

from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.imageio.reader_writer_registry import find_reader_writer
from nnunet_lite.models.checkpoint import save_checkpoint
from nnunet_lite.models.trainer_network import network_of_trainer
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import save_json

READERS = {".png": "NaturalImage2DIO", ".tif": "NaturalImage2DIO", ".nii.gz": "SimpleITKIO"}
LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
NEVER = 2**60


def main() -> None:
    """Make image and models, predict, print a table."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="nnunet_lite_benchmark_") as temporary:
        work = (args.work or Path(temporary)).resolve()
        images = work / f"images_{args.size}{args.ending}"
        _write_image(images / f"slide_0000{args.ending}", args.size, args.ending)
        rows = []
        for classes in args.classes:
            model = _write_model(work / f"model_{classes}", classes, args)
            for bands in (True, False) if args.whole_sums_too else (True,):
                rows.append(_predict(images, model, work / "predicted", classes, bands, args))
                print(json.dumps(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "results": rows}, indent=4))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20000, help="edge in pixels (default: %(default)s)")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20], help="with background (default: 2 20)")
    parser.add_argument("--ending", choices=tuple(READERS), default=".png")
    parser.add_argument("--spacing", type=float, default=1.0, help="of the network; that of the image is 1")
    parser.add_argument("--patch", type=int, default=512, help="edge of a tile (default: %(default)s)")
    parser.add_argument("--features", type=int, default=8, help="of the first stage (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="-npp and -nps; phases are told with 0 only")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for the command, after all others")
    parser.add_argument("--whole-sums-too", action="store_true", help="also hold the sums of the whole image at once")
    parser.add_argument("--work", type=Path, help="folder to work in, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    return parser.parse_args()


def _predict(
    images: Path, model: Path, output: Path, classes: int, bands: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """Run the command once."""
    remove(output)
    driver = [sys.executable, str(HERE / "drivers" / "predict_with_phases.py"), str(0 if bands else NEVER)]
    command = ["-i", images, "-o", output, "-m", model, "-f", "0", "-device", "cpu", "--disable_progress_bar"]
    workers = ["-npp", args.workers, "-nps", args.workers]
    found = measure([*driver, *map(str, command + workers), *args.flags], os.environ)
    phases = json.loads(found.output.strip().splitlines()[-1])
    return {
        "classes": classes,
        "bands": bands,
        "seconds": round(found.seconds, 1),
        "peak MiB": round(found.peak / MIB),
        "phases": {phase: round(value, 1) for phase, value in phases.items()} if args.workers == 0 else {},
        **_labels(output / f"slide{args.ending}", args.ending),
    }


def _reader(ending: str) -> BaseReaderWriter:
    return find_reader_writer(READERS[ending])()


def _labels(file: Path, ending: str) -> dict[str, int]:
    """How many labels there are, and a checksum of the map: the same with bands and without."""
    labels = _reader(ending).read_seg(str(file))[0]
    return {"labels": int(np.count_nonzero(np.bincount(labels.ravel()))), "checksum": zlib.crc32(labels.tobytes())}


def _write_image(file: Path, size: int, ending: str) -> None:
    """Blobs and noise, line by line, so that making it takes no more memory than reading it."""
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    across = np.arange(size, dtype=np.float32)
    pixels = np.empty((1, size, size), np.uint8)
    for row in range(size):
        wave = np.sin(across / 90 + np.sin(row / 150)) * np.sin(row / 70)
        pixels[0, row] = 110 + 70 * wave + random.integers(-20, 20, size)
    if ending == ".nii.gz":
        import SimpleITK as sitk

        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(file))
        return
    _reader(ending).write_seg(pixels, str(file), {"spacing": [999.0, 1.0, 1.0]})


def _write_model(folder: Path, classes: int, args: argparse.Namespace) -> Path:
    """A model folder with random weights: a U-Net of two levels."""
    plans, dataset_json = _documents(classes, args)
    save_json(plans, folder / "plans.json", sort_keys=False)
    save_json(dataset_json, folder / "dataset.json", sort_keys=False)
    manager = PlansManager(plans)
    torch.manual_seed(0)
    network, _ = network_of_trainer("nnUNetTrainer", manager, manager.get_configuration("2d"), dataset_json)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "2d"},
        "inference_allowed_mirroring_axes": (0, 1),
    }
    save_checkpoint(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def _documents(classes: int, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """plans.json and dataset.json."""
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [args.features, 2 * args.features],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 2,
            "strides": [[1, 1], [2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [args.patch, args.patch],
        "spacing": [args.spacing, args.spacing],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture,
        "batch_dice": True,
        **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": {**LINEAR, "order": 3},
        "resampling_fn_seg_kwargs": {**LINEAR, "is_seg": True},
        "resampling_fn_probabilities_kwargs": LINEAR,
    }
    plans = {
        "dataset_name": "Dataset902_Slide",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": READERS[args.ending],
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "experiment_planner_used": "ExperimentPlanner",
        "configurations": {"2d": configuration},
    }
    dataset_json = {
        "channel_names": {"0": "gray"},
        "labels": {"background": 0, **{f"class {number}": number for number in range(1, classes)}},
        "numTraining": 1,
        "file_ending": args.ending,
    }
    return plans, dataset_json


if __name__ == "__main__":
    main()
