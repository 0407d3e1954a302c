"""Which cases and outputs the forms of input mean (spec 03, 1.4 and 11.14)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import write_image
from helpers.models import DATASET_JSON, tiny_plans

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments
from nnunet_lite.inference.prediction_cases import (
    case_name,
    find_cases,
    is_done,
    output_folder,
    with_previous_stage,
)
from nnunet_lite.inference.prediction_request import requested_cases
from nnunet_lite.plans.plans_manager import PlansManager

ONE = {"file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
TWO = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "T2"}}


@pytest.fixture
def folder(tmp_path):
    for name in ("b_0000", "b_0001", "a_0000", "a_0001", "b_1_0000", "b_1_0001"):
        (tmp_path / f"{name}.nii.gz").touch()
    return tmp_path


def test_folder(folder):
    cases = find_cases(folder, folder / "out", TWO)
    assert [case.name for case in cases] == ["a", "b", "b_1"]
    assert [Path(file).name for file in cases[1].image] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert cases[2].output == str(folder / "out" / "b_1")
    assert [case.output for case in find_cases(folder, None, TWO)] == [None] * 3


def test_number_of_channels_is_checked(folder):
    with pytest.raises(DatasetError, match="a: 2 image files, but the model was trained with 1"):
        find_cases(folder, None, ONE)
    with pytest.raises(DatasetError, match=r"trained with 3 channels \(R, G, B\): a_0000.nii.gz, a_0001.nii.gz"):
        find_cases(folder, None, {**ONE, "channel_names": ["R", "G", "B"]})
    with pytest.raises(DatasetError, match="has no channel_names"):
        find_cases(folder, None, {"file_ending": ".nii.gz"})


def test_single_file_and_lists(folder):
    file = folder / "a_0000.nii.gz"
    (case,) = find_cases(file, folder / "result.nii.gz", ONE)
    assert (case.name, case.image, case.output) == ("a", [str(file)], str(folder / "result"))
    assert output_folder(folder / "result.nii.gz", ".nii.gz") == folder
    (case,) = find_cases([[str(file)]], ["x"], ONE)
    assert case.output == "x" and output_folder(["x"], ".nii.gz") == Path()
    with pytest.raises(ArgumentError, match="2 outputs were given for 1"):
        find_cases([[str(file)]], ["x", "y"], ONE)
    with pytest.raises(ArgumentError, match="is a file, but there are 3"):
        find_cases(folder, folder / "x.nii.gz", TWO)
    with pytest.raises(DatasetError, match="nothing.nii.gz"):
        find_cases([[str(folder / "nothing.nii.gz")]], None, ONE)
    with pytest.raises(ArgumentError, match="same file"):
        find_cases([[str(file)], [str(file)]], folder / "out", ONE)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/d/x_0000.nii.gz", "x"),
        ("/d/x.nii.gz", "x"),
        ("/d/x_1_0003.nii.gz", "x_1"),
        ("/d/scan.v2_0000.nii.gz", "scan.v2"),
    ],
)
def test_case_name(file, name):
    assert case_name(file, ".nii.gz") == name


def test_a_file_without_channel_number_keeps_its_name_in_a_folder(tmp_path):
    (tmp_path / "x.nii.gz").touch()
    (case,) = find_cases([[str(tmp_path / "x.nii.gz")]], tmp_path / "out", ONE)
    assert (case.name, case.output) == ("x", str(tmp_path / "out" / "x"))  # upstream: an empty name


def test_folder_without_images(tmp_path):
    with pytest.raises(DatasetError, match="it is empty"):
        find_cases(tmp_path, None, ONE)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError, match=r"CASE_0000\.nii\.gz; it holds notes\.txt"):
        find_cases(tmp_path, None, ONE)
    with pytest.raises(DatasetError, match=r"reads \.nii\.gz"):
        find_cases(tmp_path / "notes.txt", None, ONE)


def test_previous_stage(folder):
    (folder / "previous").mkdir()
    for name in ("a", "b"):
        (folder / "previous" / f"{name}.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"b_1: the previous stage's .*b_1\.nii\.gz does not exist"):
        [with_previous_stage(case, folder / "previous", ".nii.gz") for case in find_cases(folder, None, TWO)]
    (folder / "previous" / "b_1.nii.gz").touch()
    case = with_previous_stage(find_cases(folder, None, TWO)[0], folder / "previous", ".nii.gz")
    assert case.previous == str(folder / "previous" / "a.nii.gz")
    renamed = with_previous_stage(case._replace(name="other", output="somewhere/b"), folder / "previous", ".nii.gz")
    assert renamed.previous == str(folder / "previous" / "b.nii.gz")


def test_damaged_outputs_are_not_done(tmp_path, caplog):
    case = CaseToPredict("a", ["a_0000.nii.gz"], None, None, str(tmp_path / "a"))
    write_image(tmp_path / "a.nii.gz", np.arange(64, dtype=np.uint8).reshape(4, 4, 4), (1, 1, 1))
    assert is_done(case, ".nii.gz", SimpleITKIO(), with_probabilities=False)
    assert not is_done(case, ".nii.gz", SimpleITKIO(), with_probabilities=True)
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.random.default_rng(0).random((2, 4, 4, 4), np.float32))
    assert not is_done(case, ".nii.gz", SimpleITKIO(), with_probabilities=True)
    (tmp_path / "a.pkl").touch()
    assert is_done(case, ".nii.gz", SimpleITKIO(), with_probabilities=True)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255  # the directory at the end stays intact
    (tmp_path / "a.npz").write_bytes(content)
    assert not is_done(case, ".nii.gz", SimpleITKIO(), with_probabilities=True)
    assert "a.npz is damaged" in caplog.text


def test_a_misnamed_file_names_its_folder_once(tmp_path):
    for file in ("a_0000.nii.gz", "scan.nii.gz"):
        (tmp_path / file).touch()
    with pytest.raises(DatasetError) as error:
        find_cases(tmp_path, None, ONE)
    assert str(error.value).startswith(f"{tmp_path}: scan.nii.gz: no channel number at the end of its name")
    assert str(error.value).count(tmp_path.name) == 1


def test_a_number_at_the_end_of_a_misnamed_file_may_be_the_case_or_the_channel(tmp_path):
    (tmp_path / "liver_001.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"to liver_001_0000\.nii\.gz if .* to liver_0001\.nii\.gz if 001 is"):
        find_cases(tmp_path, None, ONE)


def test_parts_take_outputs_and_previous_stage_along(tmp_path):
    """Part 1 of 2 over x, y, z is y, with its own output and the previous stage's file of that name (11.14)."""
    for name in "xyz":
        (tmp_path / f"{name}_0000.nii.gz").touch()
        (tmp_path / f"{name}.nii.gz").touch()
    arguments = {
        "list_of_lists_or_source_folder": [[str(tmp_path / f"{name}_0000.nii.gz")] for name in "xyz"],
        "output_folder_or_list_of_truncated_output_files": [str(tmp_path / f"out_{name}") for name in "xyz"],
        "folder_with_segs_from_prev_stage": tmp_path,
        "num_parts": 2,
        "part_id": 1,
        "overwrite": True,
        "save_probabilities": False,
    }
    plans = PlansManager(tiny_plans())
    documents = ModelDocuments(plans.plans, plans.get_configuration("3d_cascade_fullres"), DATASET_JSON)
    (case,) = requested_cases(arguments, documents)[0]
    assert (case.name, case.output) == ("y", str(tmp_path / "out_y"))
    assert (case.image, case.previous) == ([str(tmp_path / "y_0000.nii.gz")], str(tmp_path / "y.nii.gz"))
    for part_id in (-1, 2):
        with pytest.raises(ArgumentError, match="part"):
            requested_cases({**arguments, "part_id": part_id}, documents)


def test_a_list_of_outputs_has_no_endings(folder):
    file = str(folder / "a_0000.nii.gz")
    with pytest.raises(ArgumentError, match=r"o/a\.nii\.gz: .* without file ending, as o/a"):
        find_cases([[file]], ["o/a.nii.gz"], ONE)


def test_a_folder_of_hidden_files_has_no_images(tmp_path):
    (tmp_path / ".a_0000.nii.gz").touch()
    with pytest.raises(DatasetError, match="has no images CASE_0000"):
        find_cases(tmp_path, None, ONE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a_0000.nii.gz")
    with pytest.raises(DatasetError, match="neither a file nor a folder but a pipe"):
        find_cases(tmp_path / "a_0000.nii.gz", None, DATASET_JSON)


def test_a_list_entry_may_be_a_path(folder):
    files = [folder / "a_0000.nii.gz", [folder / "b_0000.nii.gz"]]
    assert [case.image for case in find_cases(files, None, ONE)] == [[str(files[0])], [str(files[1][0])]]
