"""The parser's one-line mistakes and the command wrapper's exit codes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nnunet_lite.cli.arguments import (
    CONTINUE_TRAINING,
    DATASET_POSITION,
    EPOCHS,
    FOLD_POSITION,
    TRAINER,
    command,
    make_parser,
)
from nnunet_lite.exceptions import DatasetError


def test_an_unknown_flag_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser("nnUNetv2_train", "", EPOCHS, TRAINER)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--epoches", "5"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown flag --epoches, did you mean --epochs?" in error


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

    assert entry() == 130


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
