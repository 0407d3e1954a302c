"""Fingerprint: upstream's recorded values, one clear line per broken case, nothing half-written."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import make_dataset, make_fixture_a, make_fixture_b

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.fingerprint_extractor import DatasetFingerprintExtractor


def extract(dataset, **kwargs):
    return DatasetFingerprintExtractor(dataset, 0, show_progress=False).run(**kwargs)


def rewrite(file, change):
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    changed = sitk.GetImageFromArray(change(array))
    changed.SetSpacing(image.GetSpacing())
    sitk.WriteImage(changed, str(file))


def test_fixture_a_as_recorded(nnunet_folders):
    folder = make_fixture_a(nnunet_folders.raw)
    found = extract(11)
    assert found["shapes_after_crop"] == [[10, 32, 28], [12, 36, 32], [10, 32, 30]]
    assert found["spacings"] == [[3.5, 1, 1], [3.5, 1, 1], [3.0, 1.100000023841858, 1.100000023841858]]
    assert found["median_relative_size_after_cropping"] == 0.5263157894736842
    target = nnunet_folders.preprocessed / folder.name / "dataset_fingerprint.json"
    assert json.loads(target.read_text()) == found
    assert target.read_text() == json.dumps(found, indent=4, sort_keys=True)


def test_intensities_of_fixture_a_are_those_of_the_foreground(nnunet_folders):
    folder = make_fixture_a(nnunet_folders.raw)
    found = extract(11)["foreground_intensity_properties_per_channel"]
    for channel in ("0", "1"):
        cases = []
        for i in range(3):
            data = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"imagesTr/case_0{i}_000{channel}.nii.gz")))
            seg = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"labelsTr/case_0{i}.nii.gz")))
            cases.append(data[seg > 0])
        assert found[channel]["max"] == max(case.max() for case in cases)
        assert found[channel]["min"] == min(case.min() for case in cases)
        assert found[channel]["mean"] == pytest.approx(np.mean([case.mean() for case in cases]), rel=1e-6)
        repeated = np.concatenate([np.tile(case, 5) for case in cases])
        assert found[channel]["percentile_99_5"] == pytest.approx(np.percentile(repeated, 99.5), rel=5e-3)


def test_png_with_several_channels_per_file(nnunet_folders):
    make_fixture_b(nnunet_folders.raw)
    found = extract(12, check_dataset_integrity=True)
    assert found["shapes_after_crop"] == [[1, 64, 80]] * 2 + [[1, 72, 80]] * 2
    assert found["spacings"] == [[999, 1, 1]] * 4 and len(found["foreground_intensity_properties_per_channel"]) == 3


@pytest.mark.parametrize("check", [False, True])
def test_background_processes_give_the_same(nnunet_folders, check):
    make_dataset(nnunet_folders.raw, n=3, shape=(6, 8, 7))
    inline = extract(901, check_dataset_integrity=check)
    pooled = DatasetFingerprintExtractor(901, 2, show_progress=False).run(True, check)
    assert pooled == inline


def test_existing_fingerprint_is_loaded_and_a_changed_dataset_warned_about(nnunet_folders, caplog):
    folder = make_dataset(nnunet_folders.raw, n=2, shape=(6, 8, 7))
    found = extract(901)
    target = nnunet_folders.preprocessed / folder.name / "dataset_fingerprint.json"
    before = target.stat().st_mtime_ns
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        assert extract(901) == found and target.stat().st_mtime_ns == before
        assert not caplog.records
        os.utime(folder / "labelsTr" / "case_01.nii.gz", (1, 1))
        assert extract(901) == found
    assert "case_01" in caplog.text and "--clean" in caplog.text
    target.write_text("{}")
    assert extract(901) == found
    assert json.loads(target.read_text()) == found


def test_fingerprint_of_upstream_is_loaded(nnunet_folders, caplog):
    folder = make_dataset(nnunet_folders.raw, n=2, shape=(6, 8, 7))
    found = extract(901)
    (nnunet_folders.preprocessed / folder.name / "dataset_fingerprint_sources.json").unlink()
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        assert extract(901) == found
    assert not caplog.records


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "imagesTr/case_01_0000.nii.gz").write_bytes(b"\x1f\x8b12"), "case_01_0000.nii.gz"),
        (lambda f: rewrite(f / "imagesTr/case_01_0000.nii.gz", lambda a: np.where(a > 100, np.nan, a)), "NaN"),
        (lambda f: rewrite(f / "labelsTr/case_01.nii.gz", lambda a: a[:-1]), "shape"),
        (lambda f: (f / "labelsTr/case_01.nii.gz").unlink(), "no label map"),
    ],
)
def test_broken_case_is_one_line_and_nothing_is_written(nnunet_folders, break_it, message, check):
    folder = make_dataset(nnunet_folders.raw, n=2, shape=(6, 8, 7))
    break_it(folder)
    with pytest.raises(DatasetError, match=message) as error:
        extract(901, check_dataset_integrity=check)
    assert "case_01" in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not list(nnunet_folders.preprocessed.rglob("*.json"))


def test_no_foreground_at_all(nnunet_folders):
    folder = make_dataset(nnunet_folders.raw, n=2, shape=(6, 8, 7))
    for i in range(2):
        rewrite(folder / f"labelsTr/case_0{i}.nii.gz", np.zeros_like)
    with pytest.raises(DatasetError, match="Dataset901_Tiny: no case has a foreground voxel"):
        extract(901)


def test_foreground_outside_the_nonzero_region_does_not_count(nnunet_folders):
    folder = make_dataset(nnunet_folders.raw, n=1, shape=(6, 8, 7), vary=0)
    rewrite(folder / "imagesTr/case_00_0000.nii.gz", lambda a: np.where(np.arange(8)[:, None] < 4, 5.0, 0.0) + 0 * a)
    rewrite(folder / "labelsTr/case_00.nii.gz", lambda a: np.ones_like(a))
    found = extract(901)
    assert found["shapes_after_crop"] == [[6, 4, 7]] and found["median_relative_size_after_cropping"] == 0.5
    assert found["foreground_intensity_properties_per_channel"]["0"]["min"] == 5.0


def test_workers_import_little():
    code = (
        "import sys, nnunet_lite.experiment_planning.case_examination\n"
        "heavy = {'SimpleITK', 'torch', 'scipy', 'skimage', 'nibabel', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["Dataset004_Hippocampus"])
def test_recorded_fingerprint(dataset, nnunet_folders, shared_data, goldens, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(shared_data))
    found = DatasetFingerprintExtractor(dataset, 2, show_progress=False).run(check_dataset_integrity=True)
    expected = json.loads((goldens / dataset / "dataset_fingerprint.json").read_text())
    assert found.keys() == expected.keys()
    for key in ("shapes_after_crop", "spacings", "median_relative_size_after_cropping"):
        assert found[key] == expected[key]
    properties = "foreground_intensity_properties_per_channel"
    for channel, values in expected[properties].items():
        assert found[properties][channel] == pytest.approx(values, rel=1e-3)


def test_steps_of_upstreams_extractor_that_nobody_calls_are_named(nnunet_folders, caplog):
    class Mine(DatasetFingerprintExtractor):
        @staticmethod
        def collect_foreground_intensities(segmentation, images, seed=1234, num_samples=10000):
            raise AssertionError

    make_dataset(nnunet_folders.raw, 901, "Tiny", n=1)
    Mine(901, 0, show_progress=False).run()
    assert "Mine defines collect_foreground_intensities, which is not called here" in caplog.text
