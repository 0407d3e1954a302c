"""What goes wrong around a prediction: a line that says what to do, exit code 2, and the other cases are predicted."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.commands import files_below, run
from helpers.models import write_model

COMMAND = "nnUNetv2_predict_from_modelfolder"
QUICK = ("-f", 0, "-device", "cpu", "--disable_tta", "-step_size", 1, "--disable_progress_bar")
HERE = ("-npp", 0, "-nps", 0)
DOCUMENTS = {"dataset.json", "plans.json", "predict_from_raw_data_args.json"}
Spoil = Callable[[Path], object]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model folder `model` and a sound image in `images`."""
    write_model(tmp_path / "model", folds=(0,))
    write(tmp_path / "images" / "good_0000.nii.gz")
    return tmp_path


def write(file: Path, voxels: Any = None, spacing: tuple[float, ...] = ()) -> None:
    """An image of noise, or of these voxels."""
    file.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    image = sitk.GetImageFromArray(noise if voxels is None else voxels)
    if spacing:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))


def bad(place: Path) -> Path:
    return place / "images" / "x_0000.nii.gz"


def predict(place: Path, *flags: object, output: Path | None = None) -> int:
    options = ("-i", place / "images", "-o", output or place / "out", "-m", place / "model")
    return run(COMMAND, *options, *QUICK, *HERE, *flags)


def refusal(place: Path, capfd: Any, *flags: object, output: Path | None = None) -> str:
    """Exit code 2 and one line, which is returned; nothing at all is written."""
    before = files_below(place)
    capfd.readouterr()
    assert predict(place, *flags, output=output) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), lines
    assert files_below(place) == before
    return lines[0]


# images


def nifti(file: Path, dim: tuple[int, ...], pixdim: tuple[float, ...] = (1, 1, 1), voxels: bytes = b"") -> None:
    """A compressed NIfTI file of float32 with any header."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(dim)}h", header, 40, *dim)
    struct.pack_into("<2h", header, 70, 16, 32)
    struct.pack_into("<4f", header, 76, 1, *pixdim)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[344:348] = b"n+1\0"
    file.write_bytes(gzip.compress(bytes(header) + voxels))


def cut(place: Path) -> None:
    write(bad(place))
    bad(place).write_bytes(bad(place).read_bytes()[:600])


def wrong_bit(place: Path) -> None:
    write(bad(place))
    content = bytearray(bad(place).read_bytes())
    content[len(content) // 2] ^= 16
    bad(place).write_bytes(content)


BILLIONS = (3, 32767, 32767, 32767, 1, 1, 1, 1)
SMALL = (3, 9, 9, 9, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "truncated or damaged"),
        (wrong_bit, "truncated or damaged"),
        (lambda p: bad(p).write_bytes(b""), "cannot be read"),
        (lambda p: bad(p).write_bytes(bytes(range(7, 200)) * 9), "cannot be read"),
        (lambda p: write(bad(p), np.ones((3, 9, 9, 9), np.float32)), "9 channels"),
        (lambda p: write(bad(p), np.ones((9, 9, 9), np.complex64)), "complex numbers"),
        (lambda p: nifti(bad(p), BILLIONS), "352 bytes where its header needs 140724603847004"),
        (lambda p: nifti(bad(p), SMALL, (1e30, 1, 1), bytes(4 * 729)), "correct the spacing"),
        (lambda p: nifti(bad(p), SMALL, (1e4, 1e4, 1e4), bytes(4 * 729)), "correct the spacing"),
        (lambda p: nifti(bad(p), (3, -9, 9, 9, 1, 1, 1, 1), (1, 1, 1), bytes(4 * 729)), "cannot be read"),
    ],
    ids=["cut", "bit", "empty", "garbage", "4d", "complex", "terabytes", "spacing", "kilometres", "dimension"],
)
def test_a_bad_image_is_named_and_the_others_are_predicted(place: Path, capfd: Any, spoil: Spoil, words: str) -> None:
    spoil(place)
    assert predict(place) == 2
    error = capfd.readouterr().err
    named = [line for line in error.splitlines() if str(bad(place)) in line and not line.startswith("** ERROR")]
    at_once, at_the_end = named
    assert at_once.startswith("Warning: x failed: ") and at_the_end.startswith("Error: 1 of 2 cases failed: x: "), error
    assert words in at_once and words in at_the_end and "Traceback" not in error, error
    assert {file.name for file in (place / "out").iterdir()} == {"good.nii.gz", *DOCUMENTS}


@pytest.mark.parametrize(
    "voxels",
    [
        np.random.default_rng(0).random((3, 2, 5), np.float32),
        np.random.default_rng(0).random((1, 9, 9), np.float32),
        np.ones((1, 1, 1), np.float32),
        np.ones((10, 12), np.float32),
        np.full((9, 9, 9), 7, np.float32),
        np.zeros((9, 9, 9), np.float32),
        np.where(np.arange(729).reshape(9, 9, 9) % 2, 3e38, -3e38).astype(np.float32),
    ],
    ids=["below-patch", "one-slice", "one-voxel", "2d", "constant", "zero", "huge-values"],
)
def test_odd_images_are_predicted(place: Path, capfd: Any, voxels: Any) -> None:
    write(bad(place), voxels)
    assert predict(place, "--save_probabilities") == 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(place / "out" / "x.nii.gz")))
    assert labels.shape == voxels.shape and labels.max() <= 2
    probabilities = np.load(place / "out" / "x.npz")["probabilities"]
    assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(0), 1, atol=2e-3)
    assert "Error" not in capfd.readouterr().err


def test_nan_is_replaced_and_said(place: Path, capfd: Any) -> None:
    voxels = np.random.default_rng(0).random((9, 9, 9)).astype(np.float32)
    voxels[2, 2, 2], voxels[1, 0, 0] = np.nan, np.inf
    write(bad(place), voxels)
    assert predict(place) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if str(bad(place)) in line]
    assert len(said) == 1 and "2 voxels of NaN or infinity were set to 0" in said[0]
    assert (place / "out" / "x.nii.gz").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: write(p / "images" / "good_0001.nii.gz"), "2 image files, but the model was trained with 1"),
        (lambda p: write(p / "images" / "x_0001.nii.gz"), "x_0000.nii.gz: this channel is missing"),
        (lambda p: write(p / "images" / "x.nii.gz"), "no channel number"),
        (lambda p: bad(p).symlink_to("nowhere"), "a link to nowhere"),
        (lambda p: (p / "images" / "good_0000.nii.gz").rename(p / "images" / "good_0000.nrrd"), "CASE_0000.nii.gz"),
        (lambda p: shutil.rmtree(p / "images"), "does not exist"),
    ],
    ids=["channels", "gap", "no-channel", "broken-link", "ending", "no-folder"],
)
def test_files_that_are_misnamed_or_missing(place: Path, capfd: Any, spoil: Spoil, words: str) -> None:
    spoil(place)
    assert words in refusal(place, capfd)


@pytest.mark.parametrize(
    ("voxels", "spacing", "words"),
    [
        (np.ones((9, 10, 12), np.float32), (), "shape [1, 9, 10, 12] (channels first) differs from [1, 9, 10, 11]"),
        (None, (1.0, 1.0, 2.0), "spacing [2.0, 1.0, 1.0] differs"),
    ],
)
def test_channels_that_do_not_lie_on_one_grid(
    place: Path, capfd: Any, voxels: Any, spacing: tuple[float, ...], words: str
) -> None:
    edit(place, "dataset.json", lambda document: document.update(channel_names={"0": "T1", "1": "T2"}))
    edit(place, "plans.json", _of_two_channels)
    write_weights(place)
    for name in ("good", "x"):
        write(place / "images" / f"{name}_0000.nii.gz")
        write(place / "images" / f"{name}_0001.nii.gz", *((voxels, spacing) if name == "x" else ()))
    assert predict(place) == 2
    error = capfd.readouterr().err
    assert error.count("x_0001.nii.gz") == 2 and words in error and "Traceback" not in error, error
    assert {file.name for file in (place / "out").iterdir()} == {"good.nii.gz", *DOCUMENTS}


def _of_two_channels(plans: dict[str, Any]) -> None:
    for configuration in plans["configurations"].values():
        configuration.update(normalization_schemes=["ZScoreNormalization"] * 2, use_mask_for_norm=[False] * 2)


def test_images_of_another_ending_are_said(place: Path, capfd: Any) -> None:
    for number in range(7):
        (place / "images" / f"x{number}_0000.nrrd").touch()
    assert predict(place) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "passed over" in line]
    assert len(said) == 1 and "x0_0000.nrrd" in said[0] and said[0].endswith("x4_0000.nrrd, ...")
    assert {file.name for file in (place / "out").iterdir()} == {"good.nii.gz", *DOCUMENTS}


def test_the_only_case_is_not_said_to_have_failed_twice(place: Path, capfd: Any) -> None:
    cut(place)
    assert predict(place, "-i", bad(place), "-o", place / "out" / "x.nii.gz") == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1 and "truncated or damaged" in error, error


def test_a_single_file_is_named_at_the_end(place: Path, capfd: Any) -> None:
    assert predict(place, "-i", place / "images" / "good_0000.nii.gz", "-o", place / "m1.nii.gz") == 0
    assert f"s: {place / 'm1.nii.gz'}\n" in capfd.readouterr().out


# input and output


def test_an_image_that_is_not_there(place: Path, capfd: Any) -> None:
    line = refusal(place, capfd, "-i", place / "images" / "god_0000.nii.gz")
    assert f"The image {place / 'images' / 'god_0000.nii.gz'} does not exist" in line
    assert line.endswith(f"{place / 'images'} has good_0000.nii.gz")
    assert "no folder" in refusal(place, capfd, "-i", place / "nowhere" / "x_0000.nii.gz")


def test_images_of_another_ending_are_one_error(place: Path, capfd: Any) -> None:
    (place / "images" / "good_0000.nii.gz").rename(place / "images" / "good_0000.nrrd")
    line = refusal(place, capfd)
    assert "this model reads .nii.gz; convert those that it holds: good_0000.nrrd" in line


def test_the_folder_of_a_dataset(place: Path, capfd: Any) -> None:
    (place / "images").rename(place / "imagesTr")
    (place / "images").mkdir()
    (place / "imagesTr").rename(place / "images" / "imagesTr")
    (place / "images" / "dataset.json").write_text("{}")
    assert refusal(place, capfd).endswith("; it holds dataset.json; its folder imagesTr has images")


def test_an_output_of_another_ending(place: Path, capfd: Any) -> None:
    line = refusal(place, capfd, "-i", place / "images" / "good_0000.nii.gz", "-o", place / "m1.nii")
    assert f"-o {place / 'm1.nii'}: this model writes .nii.gz; name the file {place / 'm1'}.nii.gz" in line
    (place / "m1.nii").mkdir()
    assert predict(place, "-o", place / "m1.nii") == 0, "a folder that exists may have any name"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-f", "0,1"), "separated by blanks: -f 0 1"),
        (("-f", "fold_0"), "separated by blanks: -f 0 1"),
        (("--max-ram", 16), "did you mean 16G?"),
        (("-chk", "checkpoint_final"), "did you mean -chk checkpoint_final.pth?"),
    ],
)
def test_flags_that_mean_something_else(place: Path, capfd: Any, flags: tuple[object, ...], words: str) -> None:
    assert words in refusal(place, capfd, *flags)


@pytest.mark.parametrize("flag", ["-npp", "-nps"])
def test_negative_numbers_of_processes(place: Path, capfd: Any, flag: str) -> None:
    assert predict(place, flag, -1) == 2
    assert f"argument {flag}: '-1' is no whole number" in capfd.readouterr().err


@pytest.mark.parametrize("slash", ["", "/", "/."])
def test_segmentations_among_the_images(place: Path, capfd: Any, slash: str) -> None:
    for flags in ((), ("--continue_prediction",), ()):
        assert predict(place, "-o", f"{place / 'images'}{slash}", *flags) == 0
    assert (place / "images" / "good.nii.gz").is_file()
    (place / "images" / "stray.nii.gz").write_bytes((place / "images" / "good.nii.gz").read_bytes())
    assert "stray.nii.gz" in refusal(place, capfd, "-o", place / "images")


def test_a_file_is_not_predicted_onto_itself(place: Path, capfd: Any) -> None:
    file = place / "images" / "good_0000.nii.gz"
    content = file.read_bytes()
    line = refusal(place, capfd, "-i", file, "-o", file)
    assert "would overwrite its input" in line and str(file) in line
    (place / "link.nii.gz").symlink_to(file)
    assert "would overwrite its input" in refusal(place, capfd, "-i", file, "-o", place / "link.nii.gz")
    assert file.read_bytes() == content


def test_an_output_that_cannot_be(place: Path, capfd: Any) -> None:
    (place / "file").write_text("")
    for output in (place / "file", place / "file" / "below"):
        assert f"{place / 'file'} is a file, expected a folder" in refusal(place, capfd, output=output)
    if Path("/proc/self").exists():
        assert "cannot be created" in refusal(place, capfd, output=Path("/proc/nowhere/out"))


def test_segmentations_among_the_images_are_passed_over_later(place: Path, capfd: Any) -> None:
    """Predicted among the images once, the images can still be predicted elsewhere."""
    assert predict(place, output=place / "images") == 0
    assert "Warning" not in capfd.readouterr().err
    assert predict(place) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if "segmentations among the images" in line]
    assert len(warnings) == 1 and warnings[0].endswith("are passed over: good.nii.gz")
    assert (place / "out" / "good.nii.gz").read_bytes() == (place / "images" / "good.nii.gz").read_bytes()


def foreign(name: str) -> Spoil:
    def make(place: Path) -> None:
        (place / "out").mkdir()
        document = json.loads((place / "model" / name).read_text())
        (place / "out" / name).write_text(json.dumps({**document, "theirs": 1}))

    return make


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (foreign("dataset.json"), "out/dataset.json is that of a dataset or of another model and would be replaced"),
        (foreign("plans.json"), "out/plans.json is that of a dataset or of another model and would be replaced"),
        (lambda p: foreign("plans.json")(p) or replaced("../out/dataset.json", b"{")(p), "out/dataset.json is that of"),
        (lambda p: (p / "out" / "imagesTr").mkdir(parents=True), "out is that of a dataset (it holds imagesTr)"),
        (lambda p: (p / "out" / "labelsTr").mkdir(parents=True), "out is that of a dataset (it holds labelsTr)"),
        (lambda p: shutil.copytree(p / "model", p / "out"), "out is that of a trained model (it holds fold_0)"),
    ],
    ids=["dataset", "plans", "unreadable", "imagesTr", "labelsTr", "model"],
)
@pytest.mark.parametrize("file", ["", "good.nii.gz"])
def test_the_documents_of_others_are_not_replaced(place: Path, capfd: Any, spoil: Spoil, words: str, file: str) -> None:
    spoil(place)
    source = place / "images" / "good_0000.nii.gz" if file else place / "images"
    line = refusal(place, capfd, "-i", source, output=place / "out" / file)
    assert words in line and line.endswith("give an output folder of its own")


def test_folders_of_predictions_can_be_used_again(place: Path, capfd: Any) -> None:
    """Those of another model, ours or upstream's; and folders that hold the very same documents."""
    foreign("dataset.json")(place)
    (place / "out" / "predict_from_raw_data_args.json").write_text("{}")
    (place / "out" / "fold_0").mkdir()  # predictions of one fold, perhaps
    (place / "same").mkdir()
    shutil.copy(place / "model" / "plans.json", place / "same")
    for folder in ("out", "same"):
        assert predict(place, output=place / folder) == 0
        for name in ("dataset.json", "plans.json"):
            document = json.loads((place / folder / name).read_text())
            assert document == json.loads((place / "model" / name).read_text())


def test_the_model_is_recorded_and_another_one_is_said(place: Path, capfd: Any) -> None:
    assert predict(place) == 0
    record = json.loads((place / "out" / "predict_from_raw_data_args.json").read_text())["nnunet_lite"]
    assert record == {
        "model_folder": str(place / "model"),
        "folds": [0],
        "checkpoint": "checkpoint_final.pth",
        "use_mirroring": False,
        "tile_step_size": 1.0,
        "precision": "float32",
    }
    assert predict(place, "--continue_prediction") == 0
    assert "was predicted with" not in capfd.readouterr().err
    write_model(place / "other", folds=(0, 1))
    assert predict(place, "--continue_prediction", "-m", place / "other", "-f", 0, 1, "-step_size", 0.5) == 0
    assert (
        f"{place / 'out'} was predicted with {place / 'model'}, fold 0, tile_step_size 1.0; this call asks for "
        f"{place / 'other'}, folds 0 1, tile_step_size 0.5; finished cases stay as they are"
    ) in capfd.readouterr().err
    for odd in ('{"nnunet_lite": 3}', '{"nnunet_lite": {"folds": 7}}', "[]", "{"):
        (place / "out" / "predict_from_raw_data_args.json").write_text(odd)
        assert predict(place, "--continue_prediction") == 0
        assert ("None, fold ?, checkpoint None" in capfd.readouterr().err) == ("folds" in odd)


# the model folder


def edit(place: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change dataset.json or plans.json of the model."""
    document = json.loads((place / "model" / name).read_text())
    change(document)
    (place / "model" / name).write_text(json.dumps(document))


def write_weights(place: Path) -> None:
    """Weights for the network that the model's documents describe now."""
    from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint
    from nnunet_lite.models.trained_model import TrainedModel
    from nnunet_lite.models.trainer_network import network_of_trainer

    file = place / "model" / "fold_0" / "checkpoint_final.pth"
    model = TrainedModel(place / "model")
    configuration = model.plans_manager.get_configuration("3d_fullres")
    network, _ = network_of_trainer("nnUNetTrainer", model.plans_manager, configuration, model.dataset_json)
    save_checkpoint({**load_checkpoint(file), "network_weights": network.state_dict()}, file)


def plans(**changes: Any) -> Spoil:
    def change(document: Any) -> None:
        configuration = document["configurations"]["3d_fullres"]
        architecture = configuration["architecture"]
        for key, value in changes.items():
            places = (configuration, architecture, architecture["arch_kwargs"])
            next((holder for holder in places if key in holder), document)[key] = value

    return lambda place: edit(place, "plans.json", change)


def dataset(**changes: Any) -> Spoil:
    return lambda place: edit(place, "dataset.json", lambda document: document.update(changes))


def without(key: str, name: str) -> Spoil:
    return lambda place: edit(place, name, lambda document: (document.pop(key), document)[1])


def replaced(name: str, content: bytes) -> Spoil:
    return lambda place: (place / "model" / name).write_bytes(content)


FOLD = Path("fold_0") / "checkpoint_final.pth"
EVIL = "os.system"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: shutil.rmtree(p / "model"), "There is no model folder"),
        (lambda p: shutil.rmtree(p / "model" / "fold_0"), "has: no folds"),
        (lambda p: (p / "model" / FOLD).rename(p / "model" / "fold_0" / "checkpoint_best.pth"), "checkpoint_best.pth"),
        (lambda p: ((p / "model" / FOLD).unlink(), (p / "model" / FOLD).mkdir()), "is a folder"),
        (lambda p: (p / "model" / "plans.json").unlink(), "has no plans.json"),
        (
            lambda p: edit(p, "plans.json", lambda d: d.update(configurations={"2d": {}})),
            "no configuration '3d_fullres'",
        ),
        (replaced("plans.json", b'{"configurations": '), "is no JSON file"),
        (replaced("plans.json", b"[]"), "is no plans file"),
        (replaced("dataset.json", b'{"labels": '), "is no valid JSON"),
        (replaced("dataset.json", b"\xbf\xff"), "is no valid JSON"),
        (replaced("dataset.json", b"[]"), "holds no object"),
        (without("labels", "dataset.json"), 'lacks "labels"'),
        (without("file_ending", "dataset.json"), 'lacks "file_ending"'),
        (without("channel_names", "dataset.json"), "has no channel_names"),
        (dataset(file_ending="/../../x.nii.gz"), '"file_ending" is'),
        (dataset(file_ending=None), '"file_ending" is None'),
        (dataset(labels={"background": 0, "a": -3}), '"labels" is'),
        (dataset(labels={"background": 0, "a": 1}), "do not fit the network"),
        (dataset(channel_names={"0": "a", "1": "b"}), "dataset.json names 2 (a, b)"),
        (plans(image_reader_writer=EVIL), EVIL),
        (plans(label_manager=EVIL), EVIL),
        (plans(preprocessor_name=EVIL), EVIL),
        (plans(normalization_schemes=["__import__"]), "__import__"),
        (plans(resampling_fn_data="eval"), "'eval'"),
        (plans(network_class_name="subprocess.Popen"), "subprocess.Popen"),
        (plans(conv_op=EVIL), EVIL),
        (plans(transpose_forward=[0, 0, 1]), "transpose_forward is [0, 0, 1]"),
        (plans(transpose_forward=[1, 0, 2], transpose_backward=[2, 1, 0]), "is not the inverse"),
        (plans(patch_size=[7, 8, 8]), "must be divisible"),
        (plans(patch_size=[8, 8]), "has 2 axes"),
        (plans(patch_size=[0, 8, 8]), "patch_size is [0, 8, 8]"),
        (plans(spacing=[0, 1, 1]), "spacing is [0, 1, 1]"),
        (plans(features_per_stage=[4, 16]), "do not fit the network"),
        (plans(features_per_stage=[10**7, 10**7]), "cannot be built"),
        (plans(inherits_from="3d_fullres"), "in a circle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_model_folder(place: Path, capfd: Any, spoil: Spoil, words: str) -> None:
    edit(place, "plans.json", lambda d: d["configurations"]["3d_fullres"].update(inherits_from=None))
    spoil(place)
    assert words in refusal(place, capfd)


def test_every_cut_and_every_wrong_bit_of_a_checkpoint_is_noticed(place: Path) -> None:
    """What loads in spite of it has the same weights."""
    from nnunet_lite.exceptions import CheckpointError
    from nnunet_lite.models.checkpoint import load_checkpoint

    file = place / "model" / FOLD
    content, weights = file.read_bytes(), load_checkpoint(file)["network_weights"]
    random = np.random.default_rng(0)
    noticed = 0
    for position in random.integers(0, len(content), 150).tolist():
        spoiled = content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :]
        for changed in (spoiled, content[:position]):
            file.write_bytes(changed)
            try:
                loaded = load_checkpoint(file)["network_weights"]
            except CheckpointError as error:
                noticed += 1
                assert str(file) in str(error) and "\n" not in str(error)
            else:
                assert changed is spoiled and list(loaded) == list(weights)
                assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert noticed > 250


def test_a_damaged_checkpoint_is_one_line(place: Path, capfd: Any) -> None:
    content = bytearray((place / "model" / FOLD).read_bytes())
    content[len(content) // 2] ^= 1
    replaced(str(FOLD), bytes(content))(place)
    line = refusal(place, capfd)
    assert "is damaged (the checksum of" in line and str(place / "model" / FOLD) in line


# the first stage of a cascade


@pytest.fixture
def cascade(place: Path) -> Path:
    shutil.rmtree(place / "model")
    write_model(place / "model", "3d_cascade_fullres", folds=(0,))
    (place / "stage").mkdir()
    write(place / "images" / "x_0000.nii.gz")
    for name in ("good", "x"):
        write(place / "stage" / f"{name}.nii.gz", np.ones((9, 10, 11), np.uint8))
    return place


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.ones((9, 10, 12), np.uint8), "differ in shape"),
        (np.full((9, 10, 11), 7, np.uint8), "label 7"),
        (np.full((9, 10, 11), 0.5, np.float32), "0.5 in a label map"),
    ],
)
def test_a_previous_stage_that_does_not_fit(cascade: Path, capfd: Any, voxels: Any, words: str) -> None:
    write(cascade / "stage" / "x.nii.gz", voxels)
    assert predict(cascade, "-prev_stage_predictions", cascade / "stage") == 2
    error = capfd.readouterr().err
    assert words in error and "x" in error and "Traceback" not in error, error
    assert {file.name for file in (cascade / "out").iterdir()} == {"good.nii.gz", *DOCUMENTS}


def test_a_previous_stage_that_is_not_there(cascade: Path, capfd: Any) -> None:
    stage = cascade / "stage"
    (stage / "x.nii.gz").unlink()
    line = refusal(cascade, capfd, "-prev_stage_predictions", stage)
    assert str(stage / "x.nii.gz") in line and "does not exist" in line
    assert "does not exist" in refusal(cascade, capfd, "-prev_stage_predictions", cascade / "nowhere")
    assert "-prev_stage_predictions" in refusal(cascade, capfd)


def test_a_foreign_folder_is_refused_before_the_first_stage(cascade: Path, capfd: Any) -> None:
    models = cascade / "models"
    write_model(models / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", "3d_cascade_fullres", folds=(0,))
    write_model(models / "nnUNetTrainer__nnUNetPlans__3d_lowres", "3d_lowres", folds=(0,))
    (cascade / "out" / "imagesTr").mkdir(parents=True)
    assert "it holds imagesTr" in refusal(
        cascade, capfd, "-m", models / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"
    )


def test_a_previous_stage_is_not_overwritten(cascade: Path, capfd: Any) -> None:
    stage = cascade / "stage"
    line = refusal(cascade, capfd, "-prev_stage_predictions", stage, output=stage)
    assert "would overwrite its input" in line
