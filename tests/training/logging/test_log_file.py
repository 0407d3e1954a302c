"""The training log: everything that is said during a training, also by others than the trainer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.training.logging.log_file import append_line, messages_in_log
from nnunet_lite.utilities.logging import logger


def _say(path: Path, line: str) -> None:
    append_line(path, (line,), add_timestamp=False, to_console=True, to_file=True)


def test_messages_of_others_are_in_the_log_in_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "nnunet_lite")
    path = tmp_path / "fold_0" / "log.txt"
    with messages_in_log(path):
        logger.info("Continuing from %s", "there")
        assert not path.exists()
        _say(path, "Epoch 0")
        logger.warning("a disk is slow")
        logger.debug("a detail")
    logger.info("afterwards")
    first, epoch, last = path.read_text().splitlines()
    assert first.endswith(": Continuing from there ") and epoch == "Epoch 0 "
    assert last.endswith(": Warning: a disk is slow ")


def test_a_refused_training_leaves_no_log_and_a_failed_one_its_error(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with pytest.raises(DatasetError), messages_in_log(path):
        logger.info("Fold 0 has 1 training cases")
        raise DatasetError("no cases")
    assert not path.exists()
    with pytest.raises(DatasetError), messages_in_log(path):
        _say(path, "Epoch 0")
        raise DatasetError("a case is gone")
    assert path.read_text().splitlines()[1].endswith(": Error: a case is gone ")
    assert "Fold 0" not in path.read_text()
