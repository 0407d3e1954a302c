"""nnUNetv2_report: all that is known of a dataset and its models as one HTML file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.summary import names_of_classes
from nnunet_lite.exceptions import ArgumentError, DatasetError, PlansError, nnUNetError
from nnunet_lite.model_selection.dataset_status import DatasetStatus, ModelStatus, dataset_status
from nnunet_lite.models.model_names import Fold, parse_model_folder_name
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.plans_manager import PlansManager, available_plans
from nnunet_lite.reporting.case_results import Results, read_results
from nnunet_lite.reporting.decisions import Decisions, decisions_section, read_decisions
from nnunet_lite.reporting.fingerprint_section import fingerprint_section
from nnunet_lite.reporting.gallery import Gallery, make_gallery
from nnunet_lite.reporting.markup import Markup, element, joined
from nnunet_lite.reporting.missing_section import Missing, missing_parts, missing_section
from nnunet_lite.reporting.page import Section, folded, page
from nnunet_lite.reporting.plans_section import plans_section
from nnunet_lite.reporting.results_section import results_section
from nnunet_lite.reporting.training_curves import read_curves
from nnunet_lite.reporting.training_section import training_section
from nnunet_lite.utilities.files import PathLike, require_writable, write_text
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size
from nnunet_lite.utilities.wording import counted, describe
from nnunet_lite.version import __version__

_MOST_MODELS = 24
_MOST_CASES, _MOST_CASES_OF_OTHERS = 2000, 300  # rows of a table


class Choice(NamedTuple):
    """What the report is about; None: everything there is."""

    trainers: Sequence[str] | None = None
    plans: Sequence[str] | None = None
    configurations: Sequence[str] | None = None
    folds: Sequence[Fold] | None = None


def write_report(
    name: str,
    output_file: PathLike | None = None,
    choice: Choice | None = None,
    *,
    num_processes: int | None = None,
    channel_idx: int = 0,
) -> Path:
    """Write the report of a dataset and return the file.

    Args:
        name: DatasetXXX_NAME.
        output_file: default report.html in the dataset's folder of nnUNet_results, else of nnUNet_preprocessed.
        choice: models and folds to report on.
        num_processes: background processes that draw cases.
        channel_idx: the channel that is drawn.

    Raises:
        ArgumentError: no model fits the choice, no such channel, or a negative number of processes.
        StorageError: the file cannot be written.
    """
    begin = time.monotonic()
    choice = choice or Choice()
    output = default_output(name) if output_file is None else Path(output_file)
    require_writable(output)
    status = dataset_status(name)
    models = _chosen_models(status, choice)
    parts = _Report(name, status, models, choice, usable_processes(num_processes), channel_idx)
    parts.require_channel()
    sections = list(parts.sections())
    subtitle = f"nnunet_lite {__version__}, {datetime.now():%Y-%m-%d %H:%M}"
    write_text(page(name, subtitle, sections), output)
    logger.info("%s: %s, made in %.1f s", output, format_size(output.stat().st_size), time.monotonic() - begin)
    return output


def default_output(name: str) -> Path:
    """Where the report goes if nobody says otherwise."""
    for root in (nnUNet_results, nnUNet_preprocessed):
        if root.is_set() and (Path(os.fspath(root)) / name).is_dir():
            return Path(os.fspath(root)) / name / "report.html"
    return Path(f"report_{name}.html")


def _chosen_models(status: DatasetStatus, choice: Choice) -> list[ModelStatus]:
    models = []
    for model in status.models:
        name = parse_model_folder_name(model.folder.name)
        wanted = (choice.trainers, choice.plans, choice.configurations)
        if all(names is None or part in names for part, names in zip(name, wanted, strict=True)):
            folds = [fold for fold in model.folds if choice.folds is None or fold.fold in choice.folds]
            models.append(model._replace(folds=folds))
    if not models and any(choice[:3]) and status.models:
        there = ", ".join(model.folder.name for model in status.models)
        raise ArgumentError(f"No model of {status.name} is named so by -tr, -p and -c; there are: {there}")
    return models


class _Report:
    """Collects the parts; one that cannot be made says why and leaves the others alone."""

    def __init__(
        self,
        name: str,
        status: DatasetStatus,
        models: list[ModelStatus],
        choice: Choice,
        num_processes: int,
        channel: int,
    ) -> None:
        self._name, self._status, self._models, self._choice = name, status, models, choice
        self._num_processes, self._channel = num_processes, channel
        self._document = self._dataset_json()
        try:
            self._names = names_of_classes(self._document.labels) if self._document is not None else {}
        except DatasetError:
            self._names = {}
        self._decisions = self._read_decisions()

    def _folders(self) -> Iterator[Path]:
        """Where documents of the dataset may lie."""
        for root in (nnUNet_preprocessed, nnUNet_raw):
            if root.is_set():
                yield Path(os.fspath(root)) / self._name
        yield from (model.folder for model in self._models)

    def _dataset_json(self) -> DatasetJson | None:
        for folder in self._folders():
            try:
                return DatasetJson.from_file(folder / "dataset.json")
            except DatasetError:
                continue
        return None

    def _read_decisions(self) -> Decisions | None:
        """Of all models; of some alone they say nothing of use."""
        if not nnUNet_results.is_set():
            return None
        decisions = read_decisions(Path(os.fspath(nnUNet_results)) / self._name)
        there = {model.folder.name for model in self._models}
        return decisions if decisions is not None and there >= set(decisions.members) else None

    def require_channel(self) -> None:
        """Raise ArgumentError for a channel that images do not have."""
        try:
            channels = self._document.num_input_channels if self._document is not None else 1
        except DatasetError:
            channels = 1
        if not 0 <= self._channel < max(1, channels):
            raise ArgumentError(f"channel_idx is {self._channel}, but the dataset has the channels 0 to {channels - 1}")

    def sections(self) -> Iterator[Section]:
        """All parts in order."""
        yield self._section("overview", "Overview", self._overview)
        yield self._section("fingerprint", "Fingerprint", self._fingerprint)
        yield self._section("plans", "Plans", self._plans)
        yield self._section("training", "Training", self._training)
        yield self._section("results", "Results", self._results)
        yield self._section("cases", "Worst and median cases", self._cases)
        yield self._section("decisions", "Ensembles and postprocessing", self._decided)
        yield self._section("missing", "What is missing", self._missing)

    def _section(self, anchor: str, title: str, make: Callable[[], Markup]) -> Section:
        try:
            return Section(anchor, title, make())
        except Exception as error:  # documents can be damaged in more ways than anybody thinks of
            words = f"This part cannot be made: {describe(error)}"
            logger.warning("%s, %s: %s", self._name, title, words)
            logger.debug("What happened", exc_info=True)
            return Section(anchor, title, element("p", words, class_="warning"))

    def _overview(self) -> Markup:
        status = self._status
        words = [f"{counted(status.training_cases, 'training case')}, {counted(status.test_cases, 'test case')}"]
        words.append(counted(len(self._models), "model"))
        if self._document is not None:
            try:
                words.append("channels: " + ", ".join(self._document.channel_names))
                words.append("labels: " + ", ".join(self._document.labels))
            except DatasetError as error:
                words.append(str(error))
        best = None
        if self._decisions is not None:
            text = " and ".join(self._decisions.members)
            best = element("p", "Best by cross-validation: ", element("strong", text), ".")
        return joined(element("ul", *[element("li", word) for word in words]), best)

    def _fingerprint(self) -> Markup:
        files = [folder / "dataset_fingerprint.json" for folder in self._folders()]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            return element("p", "There is no fingerprint yet.", class_="note")
        try:
            channels = self._document.channel_names if self._document is not None else []
            return fingerprint_section(DatasetFingerprint.from_file(file), channels)
        except nnUNetError as error:
            return element("p", str(error), class_="warning")

    def _plans(self) -> Markup:
        folder = Path(os.fspath(nnUNet_preprocessed)) / self._name if nnUNet_preprocessed.is_set() else None
        files = {}
        if folder is not None and folder.is_dir():
            files = {name: folder / f"{name}.json" for name in available_plans(folder)}
        for model in self._models:  # plans of a model that was made elsewhere
            files.setdefault(parse_model_folder_name(model.folder.name).plans, model.folder / "plans.json")
        parts = []
        for name, file in files.items():
            if self._choice.plans is not None and name not in self._choice.plans:
                continue
            try:
                parts.append(plans_section({name: PlansManager(file)}))
            except PlansError as error:
                parts.append(element("p", str(error), class_="warning"))
        return joined(*parts) if parts else element("p", "There are no plans yet.", class_="note")

    def _training(self) -> Markup:
        parts = []
        chosen = () if self._decisions is None else self._decisions.members
        for index, model in enumerate(self._models[:_MOST_MODELS]):
            is_open = model.folder.name in chosen if chosen else index == 0
            curves = {fold.fold: read_curves(model.folder / f"fold_{fold.fold}") for fold in model.folds}
            content = training_section(model.folder.name, model.folds, curves)
            parts.append(folded(model.folder.name, content, is_open=is_open))
        rest = len(self._models) - _MOST_MODELS
        if rest > 0:
            parts.append(
                element("p", f"{rest} further models are not shown; choose with -tr, -p and -c.", class_="note")
            )
        return joined(*parts) if parts else element("p", "No model has been trained.", class_="note")

    def _results_of(self, model: ModelStatus) -> Results:
        files = [
            (fold.fold, model.folder / f"fold_{fold.fold}" / "validation" / "summary.json") for fold in model.folds
        ]
        there = [(fold, file) for fold, file in files if file.is_file()]
        return read_results(model.folder.name, there, self._file_ending(model.folder))

    @staticmethod
    def _file_ending(model: Path) -> str:
        try:
            return str(DatasetJson.from_file(model / "dataset.json").file_ending)
        except DatasetError:
            return ""

    @cached_property
    def _all_results(self) -> list[Results]:
        found = [self._results_of(model) for model in self._models[:_MOST_MODELS]]
        return [results for results in found if results.cases]

    @cached_property
    def _main(self) -> Results | None:
        """The results whose cases are shown: of what was chosen, else of the most cases, else the best."""
        decisions, results = self._decisions, self._all_results
        # isfile: False for a name that is too long, too
        if decisions is not None and len(decisions.members) > 1 and os.path.isfile(decisions.folder / "summary.json"):
            found = read_results(decisions.best, [(None, decisions.folder / "summary.json")],
                                 self._file_ending(decisions.folder))  # fmt: skip
            if found.cases:
                return found
        if decisions is not None:
            chosen = next((found for found in results if found.name == decisions.best), None)
            if chosen is not None:
                return chosen
        return max(results, key=lambda found: (len(found.cases), found.mean), default=None)

    def _results(self) -> Markup:
        main = self._main
        if main is None:
            return element("p", "No fold has been validated.", class_="note")
        first = joined(element("h3", main.name), results_section(main, self._names, _MOST_CASES))
        others = [
            folded(found.name, results_section(found, self._names, _MOST_CASES_OF_OTHERS))
            for found in self._all_results
            if found.name != main.name
        ]
        return joined(first, *others)

    def _cases(self) -> Markup:
        main = self._main
        if main is None:
            return element("p", "No fold has been validated.", class_="note")
        gallery = Gallery(self._name, main, self._names, self._channel, self._num_processes)
        folders = {model.folder.name: model.folder for model in self._models}
        if main.name not in folders and self._decisions is not None:  # an ensemble: any member has its documents
            return make_gallery(gallery, folders[self._decisions.members[0]])
        return make_gallery(gallery, folders[main.name])

    def _decided(self) -> Markup:
        if self._decisions is not None:
            return decisions_section(self._decisions, self._names)
        if self._status.chosen:
            words = "What nnUNetv2_find_best_configuration has chosen is not among these models, or cannot be read."
        elif self._missing_parts:
            words = (
                "nnUNetv2_find_best_configuration has not compared these models yet; the last part of this report "
                "says what it needs."
            )
        else:
            words = "nnUNetv2_find_best_configuration compares models by all folds of a cross-validation."
        return element("p", words, class_="note")

    @cached_property
    def _missing_parts(self) -> list[Missing]:
        return missing_parts(self._status, self._models, self._choice.folds)

    def _missing(self) -> Markup:
        return missing_section(self._status, self._missing_parts)
