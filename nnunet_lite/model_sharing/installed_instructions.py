"""Instructions that come with a zip of models, made those of the machine that the models are installed on."""

from __future__ import annotations

from pathlib import Path

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.models.prediction_commands import inference_instructions, moved_information
from nnunet_lite.utilities.files import load_json, save_json, write_text
from nnunet_lite.utilities.logging import logger


def adapt_instructions(folder: Path, results: Path) -> None:
    """Let inference_information.json and inference_instructions.txt name the files as they will lie in nnUNet_results.

    Both hold absolute paths of the machine that exported the models, so that their commands would fail here.

    Args:
        folder: extracted zip with folders DatasetXXX_NAME; changed.
        results: where its content will be moved to.
    """
    for file in sorted(folder.glob("Dataset*/inference_information.json")):
        dataset = file.parent
        try:
            information = moved_information(load_json(file), dataset, results / dataset.name)
            plans = dataset / information["best_model_or_ensemble"]["some_plans_file_relative"]
            text = inference_instructions(information, plans=plans)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, nnUNetError) as error:
            logger.warning(
                "%s/%s cannot be read (%s): the commands in inference_instructions.txt name files of another machine",
                *(dataset.name, file.name, " ".join(f"{type(error).__name__}: {error}".split())),
            )
            continue
        save_json(information, file)
        write_text(text, dataset / "inference_instructions.txt")
