"""Wrong values for every flag of the planning commands: one line that names the value, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.commands import complaint, files_below, succeed
from helpers.datasets import make_dataset

CHECK, EXTRACT = "nnUNetv2_check_dataset", "nnUNetv2_extract_fingerprint"
PLAN, PREPROCESS = "nnUNetv2_plan_experiment", "nnUNetv2_preprocess"
ALL = "nnUNetv2_plan_and_preprocess"

DATASETS = [
    ((), ["-d"]),
    (("-d",), ["-d"]),
    (("-d", 999), ["999", "Dataset901_Tiny"]),
    (("-d", "Dataset999_Other"), ["Dataset999_Other", "Dataset901_Tiny"]),
    (("-d", "hippocampus"), ["hippocampus", "Dataset004_Hippocampus"]),
    (("-d", -4), ["-4"]),
    (("-d", 901, 7), ["7", "Dataset901_Tiny"]),
    (("-d", "1e3"), ["1e3"]),
]
PLANNING = [
    (("-pl", "ExperimentPlaner"), ["ExperimentPlaner", "ExperimentPlanner"]),
    (("-pl", "DatasetFingerprintExtractor"), ["DatasetFingerprintExtractor", "ExperimentPlanner"]),
    (("-pl", "check_dataset"), ["check_dataset", "ExperimentPlanner"]),
    (("-gpu_memory_target", 0), ["0"]),
    (("-gpu_memory_target", -8), ["-8"]),
    (("-gpu_memory_target", "nan"), ["nan"]),
    (("-gpu_memory_target", "inf"), ["inf"]),
    (("-gpu_memory_target", "8G"), ["8G"]),
    (("-preprocessor_name", "MyPreprocessor"), ["MyPreprocessor", "DefaultPreprocessor"]),
    (("-preprocessor_name", "crop_to_nonzero"), ["crop_to_nonzero", "DefaultPreprocessor"]),
    (("-overwrite_target_spacing", 1, 1), ["1", "three positive numbers"]),
    (("-overwrite_target_spacing", 1, 1, 1, 1), ["three positive numbers"]),
    (("-overwrite_target_spacing", 1, 0, 1), ["0", "three positive numbers"]),
    (("-overwrite_target_spacing", 1, -2, 1), ["-2", "three positive numbers"]),
    (("-overwrite_target_spacing", 1, "nan", 1), ["nan", "three positive numbers"]),
    (("-overwrite_target_spacing", "1,1,1"), ["1,1,1", "three positive numbers"]),
    (("-overwrite_plans_name", "../elsewhere"), ["../elsewhere"]),
    (("-overwrite_plans_name", ""), ["plans name ''"]),
]
PROCESSES = [
    (("-np", 2, 3), ["[2, 3]", "2d, 3d_fullres, 3d_lowres"]),
    (("-np", -1), ["-1"]),
    (("-np", 4, 4, -4), ["-4"]),
    (("-np", "many"), ["many"]),
    (("-np", 2.5), ["2.5"]),
]
MEMORY = [(("--max-ram", value), [str(value)]) for value in ("lots", 0, "16 gigabytes", "nan", "G")]
MEMORY.append((("--max-ram", "-4G"), ["--max-ram"]))
EXTRACTOR = [
    (("-fpe", "FingerprintExtractor"), ["FingerprintExtractor", "DatasetFingerprintExtractor"]),
    (("-fpe", "ExperimentPlanner"), ["ExperimentPlanner", "DatasetFingerprintExtractor"]),
]
MISSPELT = [(("--verfy_dataset_integrity",), ["--verfy_dataset_integrity"]), (("stray",), ["stray"])]

CASES = {
    CHECK: [*DATASETS, *MEMORY, *MISSPELT, (("-np", -1), ["-1"]), (("-np", "x"), ["x"]), (("--json", "."), ["folder"])],
    EXTRACT: [*DATASETS, *EXTRACTOR, *MEMORY, *MISSPELT, (("-np", -1), ["-1"]), (("-np", 1, 2), ["2"])],
    PLAN: [*DATASETS, *PLANNING, *MISSPELT],
    PREPROCESS: [
        *DATASETS,
        *PROCESSES,
        *MEMORY,
        *MISSPELT,
        (("-plans_name", "myPlans"), ["myPlans", "nnUNetPlans"]),
        (("-plans_name", "../nnUNetPlans"), ["../nnUNetPlans"]),
        (("-c", "3d_fulres"), ["3d_fulres", "3d_fullres"]),
        (("-c",), ["-c"]),
    ],
    ALL: [*DATASETS, *EXTRACTOR, *PLANNING, *PROCESSES, *MEMORY, *MISSPELT, (("-npfp", -2), ["-2"])],
}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A planned dataset, made once: nothing here may change it."""
    root = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        patch.delenv("nnUNet_extTrainer", raising=False)
        make_dataset(root / "nnUNet_raw", n=2, shape=(8, 10, 9))
        succeed(ALL, "-d", 901, "-npfp", 0, "--no_pp", "--no_pbar")
        yield root


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [pytest.param(c, f, w, id=f"{c} {' '.join(map(str, f))}") for c, cases in CASES.items() for f, w in cases],
)
def test_wrong_value(planned: Path, capfd: Any, command: str, flags: tuple[Any, ...], words: list[str]) -> None:
    before = files_below(planned)
    arguments = list(flags)
    if flags and "-d" not in flags:
        arguments += ["-d", 901]
    if command in (EXTRACT, ALL):
        arguments.append("--clean")
    if command != PLAN:
        arguments.append("--no_pbar")
    line = complaint(capfd, command, *arguments)
    for word in words:
        assert word in line
    assert files_below(planned) == before


def test_a_dataset_given_twice_is_taken_once(planned: Path, capfd: Any) -> None:
    succeed(CHECK, "-d", 901, "Dataset901_Tiny", "901", "-np", 0, "--no_pbar")
    assert capfd.readouterr().out.count("Dataset901_Tiny: 2 cases") == 1
