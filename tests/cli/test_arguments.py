"""The parser's one-line mistakes and the command wrapper's exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest

from nnunet_lite.cli.arguments import (
    CONFIGURATION_POSITION,
    CONTINUE_TRAINING,
    DATASET_POSITION,
    DEVICE,
    EPOCHS,
    FOLD_POSITION,
    LABELS,
    PLANS,
    PRETRAINED_WEIGHTS,
    STEP_SIZE,
    TRAINER,
)
from nnunet_lite.cli.command import command, make_parser
from nnunet_lite.exceptions import DatasetError


def test_an_unknown_flag_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser("nnUNetv2_train", "", EPOCHS, TRAINER)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--epoches", "5"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown flag --epoches, did you mean --epochs?" in error


def test_a_word_in_place_of_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser("nnUNetv2_evaluate_simple", "", LABELS, STEP_SIZE)
    for given, said in (
        (["-l", "1", "two"], "-l two: expected a whole number"),
        (["-l", "1", "-step_size", "half"], "-step_size half: expected a number"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(given)
        assert capsys.readouterr().err == f"nnUNetv2_evaluate_simple: {said} (see nnUNetv2_evaluate_simple -h)\n"


def test_a_variant_leaves_the_original_alone() -> None:
    variant = TRAINER.but(default="Other")
    assert variant.options["default"] == "Other"
    assert TRAINER.options["default"] == "nnUNetTrainer"
    assert make_parser("x", "", CONTINUE_TRAINING).parse_args(["--c"]).c is True


def test_a_users_mistake_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def entry(argv: Sequence[str] | None) -> int:
        raise DatasetError("case a: no label")

    assert entry([]) == 2
    assert capsys.readouterr().err == "Error: case a: no label\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def entry(argv: Sequence[str] | None) -> int:
        raise KeyboardInterrupt

    assert entry([]) == 130


def test_missing_positional_arguments_are_shown_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser("train", "", DATASET_POSITION, FOLD_POSITION).parse_args(["4"])
    assert "required: fold; expected: train dataset_name_or_id fold [flags]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "4"], "Stopped. Finished work is kept; the same command goes on.\n"),
        (
            ["-d", "4", "--clean"],
            "Stopped. Finished work is kept; the same command goes on. With --clean it starts over.\n",
        ),
    ],
)
def test_what_goes_on_after_ctrl_c(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def entry(argv: Sequence[str] | None) -> int:
        raise KeyboardInterrupt

    assert entry(arguments) == 130
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_ctrl_c_and_sigterm_say_the_same(stop: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    vars(stop)["__notes__"] = ["Stopped; 1 case had failed: a (unreadable)"]

    def entry(argv: Sequence[str] | None) -> int:
        raise stop

    if isinstance(stop, SystemExit):
        with pytest.raises(SystemExit):
            command(entry, "Stopped.")([])
    else:
        assert command(entry, "Stopped.")([]) == 130
    assert capsys.readouterr().err == "Stopped.\nStopped; 1 case had failed: a (unreadable)\n"


def _train_parser() -> argparse.ArgumentParser:
    positions = (DATASET_POSITION, CONFIGURATION_POSITION, FOLD_POSITION)
    return make_parser("nnUNetv2_train", "", *positions, PLANS, PRETRAINED_WEIGHTS, DEVICE)


@pytest.mark.parametrize("given", [["-pretrained_weigths", "a.pth"], ["-pretrained_weigths=a.pth"]])
def test_a_misspelled_flag_is_not_taken_for_a_short_one(capsys: pytest.CaptureFixture[str], given: list[str]) -> None:
    with pytest.raises(SystemExit):
        _train_parser().parse_args(["4", "2d", "0", *given])
    assert f"unknown flag {given[0]}, did you mean -pretrained_weights?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "example"),
    [
        (["-d", "5", "-c", "3d_fullres", "-f", "1"], "5 3d_fullres 1"),
        (["4", "-c", "2d"], "4 2d 0"),
        (["2d", "0", "-d", "7"], "7 2d 0"),
    ],
)
def test_positions_given_as_flags(capsys: pytest.CaptureFixture[str], given: list[str], example: str) -> None:
    with pytest.raises(SystemExit) as end:
        _train_parser().parse_args(given)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    expected = f"nnUNetv2_train: takes dataset, configuration and fold without flags: nnUNetv2_train {example} (see"
    assert expected in error


def test_what_argparse_takes_as_a_short_form_is_still_taken() -> None:
    parsed = _train_parser().parse_args(["4", "2d", "0", "-d", "cpu", "-pnnUNetPlans_x"])
    assert (parsed.device, parsed.p) == ("cpu", "nnUNetPlans_x")
