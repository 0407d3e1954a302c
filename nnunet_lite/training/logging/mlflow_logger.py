"""Logging to MLflow."""

from __future__ import annotations

import contextlib
import json
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from nnunet_lite.configuration import mlflow_experiment, mlflow_tracking_uri
from nnunet_lite.paths import nnUNet_results
from nnunet_lite.utilities.files import PathLike, load_json, save_json, to_plain

_MEMO = "mlflow_run.json"  # in the fold's folder: where its run is
_LONGEST_PARAMETER = 500  # characters; what is longer becomes a file of the run


class MlflowLogger:
    """One run per training; a continued training goes on with its run and does not send an epoch twice.

    Without nnUNet_mlflow_tracking_uri the runs of all trainings are in nnUNet_results/mlflow.
    """

    def __init__(self, output_folder: PathLike, resume: bool, first_step: int) -> None:
        uri = mlflow_tracking_uri()
        artifacts = None
        if uri is None:
            folder = Path(nnUNet_results / "mlflow").absolute()
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client: Any = import_module("mlflow").MlflowClient(uri)
        memo = Path(output_folder, _MEMO)
        known = load_json(memo) if resume and memo.is_file() else {}
        if known.get("tracking_uri") == uri:
            self._run = str(known["run_id"])
            self._client.update_run(self._run, status="RUNNING")
        else:
            fold = Path(output_folder)
            experiment = self._experiment(mlflow_experiment(), artifacts)
            name = "/".join(fold.parts[-3:])  # dataset, model, fold
            self._run = str(self._client.create_run(experiment, run_name=name).info.run_id)
            save_json({"tracking_uri": uri, "run_id": self._run}, memo)
        self._resumed = known.get("tracking_uri") == uri
        self._sent: dict[str, int] = {}

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """The experiment of that name, made if need be; several folds may do so at the same time."""
        if self._client.get_experiment_by_name(name) is None:
            with contextlib.suppress(Exception):  # made by another fold; what else is wrong shows in the next line
                self._client.create_experiment(name, artifact_location=artifacts)
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def update_config(self, config: dict[str, Any]) -> None:
        """Short entries become parameters, those of dictionaries one by one; long ones files of the run."""
        for key, value in config.items():
            if len(_text(value)) > _LONGEST_PARAMETER:
                self._client.log_text(self._run, _text(value, indent=2), f"{key}.json")
            elif isinstance(value, dict):
                for name, item in value.items():
                    self._parameter(f"{key}.{name}", item)
            else:
                self._parameter(key, value)

    def _parameter(self, key: str, value: Any) -> None:
        """Parameters cannot be changed: a continued training keeps those it began with."""
        try:
            self._client.log_param(self._run, key, value)
        except Exception:
            if not self._resumed:
                raise

    def log(self, key: str, value: Any, step: int) -> None:
        """Send the value of an epoch, unless the run has it; what is no number is left out."""
        number = to_plain(value)
        if not isinstance(number, Real):
            return
        if key not in self._sent:
            history = self._client.get_metric_history(self._run, key) if self._resumed else []
            self._sent[key] = max((metric.step for metric in history), default=-1)
        if step > self._sent[key]:
            self._client.log_metric(self._run, key, float(number), step=step)

    def log_summary(self, key: str, value: Any) -> None:
        """Set a result of the whole training."""
        number = to_plain(value)
        if isinstance(number, Real):
            self._client.log_metric(self._run, key, float(number))

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


def _text(value: Any, indent: int | None = None) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=indent, default=lambda item: str(item))
