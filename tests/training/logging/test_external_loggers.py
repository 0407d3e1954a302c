"""W&B, TensorBoard and MLflow: what is sent to them, and that none of them ever ends a training.

Stand-ins show the calls; where a package is installed, it is used itself and what it wrote is read back.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny_training

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.training.logging.external_loggers import job_identifier, start_external_loggers
from nnunet_lite.training.logging.loggers import MetaLogger
from nnunet_lite.training.logging.wandb_logger import earlier_run
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

SWITCHES = {name: f"nnUNet_{name}_enabled" for name in ("wandb", "tensorboard", "mlflow")}


@pytest.fixture(autouse=True)
def nothing_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SWITCHES.values(), "nnUNet_wandb_project", "nnUNet_wandb_mode", "SLURM_JOB_ID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)


class Run(SimpleNamespace):
    """A run of W&B."""

    def __init__(self, step: int, **arguments: Any) -> None:
        self.step, self.arguments, self.sent, self.summary, self.finished = step, arguments, [], {}, False
        self.config = SimpleNamespace(values={}, update=self._update)

    def _update(self, config: dict[str, Any], allow_val_change: bool) -> None:
        assert allow_val_change
        self.config.values.update(config)

    def log(self, values: dict[str, Any], step: int) -> None:
        self.sent.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for the package; `steps` are what the service has already."""
    module = ModuleType("wandb")
    module.runs, module.steps, module.failure = [], 0, None

    def init(**arguments: Any) -> Run:
        if module.failure is not None:
            raise module.failure
        module.runs.append(Run(module.steps, **arguments))
        return module.runs[-1]

    module.init, module.errors = init, SimpleNamespace(UsageError=KeyError)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv(SWITCHES["wandb"], "1")
    return module


def connected(folder: Path, resume: bool = False, epochs: int = 0) -> MetaLogger:
    """A logger as a training has it when it starts."""
    logger = MetaLogger(folder, resume)
    logger.update_config({"fold": 0})
    if epochs:
        logger.load_checkpoint({key: [0.5] * epochs for key in logger.my_fantastic_logging})
    logger.connect()
    return logger


@pytest.mark.parametrize("value", ["TRUE", "yes", ""])
def test_only_upstreams_spellings_switch_wandb(value: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(SWITCHES["wandb"], value)
    with pytest.raises(ArgumentError, match="expected 1, True, true, 0, False or false"):
        MetaLogger(tmp_path, False)


@pytest.mark.parametrize("value", ["0", "False", "false", None])
def test_wandb_is_off(value: str | None, tmp_path: Path, wandb: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv(SWITCHES["wandb"])
    if value is not None:
        monkeypatch.setenv(SWITCHES["wandb"], value)
    assert connected(tmp_path).loggers == []


@pytest.mark.parametrize("name", SWITCHES)
def test_a_missing_package_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCHES[name], "1")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ArgumentError, match=rf"pip install nnunet_lite\[{name}\], or unset {SWITCHES[name]}"):
        MetaLogger(tmp_path, False)


def test_a_folder_called_wandb_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(SWITCHES["wandb"], "1")
    with pytest.raises(ArgumentError, match="the package wandb is not installed"):
        MetaLogger(tmp_path, False)


def test_what_wandb_gets(tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSB_JOBID", "7")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    logger = connected(tmp_path)
    logger.update_config({"hparas": {"lr": 1}})
    logger.log("dice_per_class_or_region", [0.25, math.nan], 0)
    logger.log("lrs", 0.1, 1)
    logger.log_summary("final_val/foreground_dice", 0.9)
    logger.close()
    (run,) = wandb.runs
    assert run.arguments == {
        "dir": str(tmp_path),
        "project": "nnunet",
        "mode": "online",
        "id": None,
        "resume": "never",
    }
    assert run.config.values == {"JobID": "8", "fold": 0, "hparas": {"lr": 1}}
    assert str(run.sent) == str(
        [
            (0, {"dice_per_class_or_region/class_1": 0.25}),
            (0, {"dice_per_class_or_region/class_2": math.nan}),
            (1, {"lrs": 0.1}),
        ]
    )
    assert run.summary == {"current_epoch": 1, "final_val/foreground_dice": 0.9}
    assert run.finished


def test_wandb_goes_on_with_its_run(tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_wandb_project", "mine")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    earlier = tmp_path / "wandb" / "latest-run" / "run-abc-1.wandb"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("kept")
    wandb.steps = 3
    logger = connected(tmp_path, epochs=2)  # a validation or a continued training
    logger.log("lrs", 0.1, 2)
    logger.log("lrs", 0.2, 3)
    (run,) = wandb.runs
    given = {key: run.arguments[key] for key in ("id", "resume", "project", "mode")}
    assert given == {"id": "abc-1", "resume": "allow", "project": "mine", "mode": "offline"}
    assert run.sent == [(3, {"lrs": 0.2})]
    connected(tmp_path)
    assert wandb.runs[1].arguments["resume"] == "never"
    assert earlier.read_text() == "kept"
    assert earlier_run(tmp_path / "elsewhere") is None


def test_wrong_settings_end_a_training_before_it_starts(tmp_path: Path, wandb: Any) -> None:
    wandb.failure = KeyError("No API key configured.")
    with pytest.raises(ArgumentError, match="nnUNet_wandb_mode=online: .*No API key.*offline"):
        connected(tmp_path)


def test_an_unreachable_service_does_not(tmp_path: Path, wandb: Any, caplog: pytest.LogCaptureFixture) -> None:
    wandb.failure = ConnectionError("no route\nto host")
    logger = connected(tmp_path)
    logger.log("lrs", 0.1, 0)
    assert logger.get_value("lrs") == [0.1]
    assert "Logging to W&B is off for this training: ConnectionError: no route to host" in caplog.text


def test_other_ranks_log_nowhere(tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_lite.training.logging.loggers.rank", lambda: 1)
    assert connected(tmp_path).loggers == []
    assert wandb.runs == []


def test_a_failing_logger_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        calls = 0

        def log(self, key: str, value: Any, step: int) -> None:
            self.calls += 1
            raise OSError("gone")

    failing, other, logger = Failing(), Run(0), MetaLogger(tmp_path, False)
    other.log = lambda key, value, step: other.sent.append(key)
    logger.loggers += [failing, other]
    logger.log("lrs", 1, 0)
    logger.log("mean_fg_dice", 0.5, 0)
    assert failing.calls == 1
    assert other.sent == ["lrs", "mean_fg_dice", "ema_fg_dice"]
    assert caplog.text.count("Failing failed and is left out from now on: OSError: gone") == 1


def test_job_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    assert job_identifier() == {}
    monkeypatch.setenv("LSB_JOBID", "7")
    assert job_identifier() == {"JobID": "7"}


class Writer:
    """Stands in for TensorBoard's writer."""

    def __init__(self, folder: str, purge_step: int | None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.folder, self.purge_step, self.scalars, self.texts = folder, purge_step, [], {}

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.scalars.append((key, value, step))

    def add_text(self, key: str, text: str) -> None:
        self.texts[key] = text

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.folder = "closed"


def test_what_tensorboard_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setenv(SWITCHES["tensorboard"], "true")
    logger = connected(tmp_path)
    logger.log("epoch_start_timestamps", 1000.0, 0)
    logger.log("epoch_end_timestamps", 1060.5, 0)
    logger.log("dice_per_class_or_region", [0.25], 0)
    logger.log_summary("final_val/foreground_dice", 0.9)
    writer: Any = logger.loggers[0]._writer
    assert writer.folder == str(tmp_path / "tensorboard" / "training_1")
    assert writer.scalars == [
        ("epoch_seconds", 60.5, 0),
        ("dice_per_class_or_region/class_1", 0.25, 0),
        ("final_val/foreground_dice", 0.9, 0),
    ]
    assert writer.texts == {"config/fold": "```\n0\n```"}
    logger.close()
    assert (writer.folder, logger.loggers) == ("closed", [])
    continued: Any = connected(tmp_path, epochs=4).loggers[0]._writer
    assert (continued.folder, continued.purge_step) == (str(tmp_path / "tensorboard" / "training_1"), 4)
    anew: Any = connected(tmp_path).loggers[0]._writer
    assert (anew.folder, anew.purge_step) == (str(tmp_path / "tensorboard" / "training_2"), None)


class Client:
    """Stands in for a client of MLflow; `store` is what the server keeps."""

    store: dict[str, Any] = {}

    def __init__(self, uri: str) -> None:
        self.runs: dict[str, Any] = self.store.setdefault(uri, {})

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1") if "experiment" in self.runs else None

    def create_experiment(self, name: str, artifact_location: str | None) -> None:
        self.runs["experiment"] = (name, artifact_location)

    def create_run(self, experiment: str, run_name: str) -> Any:
        number = f"run{len(self.runs)}"
        self.runs[number] = {"name": run_name, "metrics": [], "parameters": {}, "files": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def log_metric(self, run: str, key: str, value: float, step: int | None = None) -> None:
        self.runs[run]["metrics"].append((key, value, step))

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for name, _, step in self.runs[run]["metrics"] if name == key]

    def log_param(self, run: str, key: str, value: Any) -> None:
        if self.runs[run]["parameters"].setdefault(key, value) != value:
            raise ValueError("parameters cannot be changed")

    def log_text(self, run: str, text: str, name: str) -> None:
        self.runs[run]["files"][name] = text

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    def set_terminated(self, run: str) -> None:
        self.runs[run]["status"] = "FINISHED"


def test_what_mlflow_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "store", {})
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    monkeypatch.setenv(SWITCHES["mlflow"], "1")
    monkeypatch.setenv("nnUNet_mlflow_tracking_uri", "http://server")
    fold = tmp_path / "Dataset001_X" / "A__B__2d" / "fold_0"
    logger = connected(fold)
    logger.update_config({"plans": {"long": "x" * 600}, "hparas": {"lr": 0.1}})
    logger.log("dice_per_class_or_region", [0.25], 0)
    logger.log("lrs", 0.1, 1)
    logger.log("lrs", None, 2)
    logger.log_summary("final_val/foreground_dice", 0.9)
    logger.close()
    run = Client.store["http://server"]["run1"]
    assert (run["name"], run["status"]) == ("Dataset001_X/A__B__2d/fold_0", "FINISHED")
    assert run["parameters"] == {"fold": 0, "hparas.lr": 0.1}
    assert json.loads(run["files"]["plans.json"]) == {"long": "x" * 600}
    metrics = [
        ("dice_per_class_or_region/class_1", 0.25, 0),
        ("lrs", 0.1, 1),
        ("final_val/foreground_dice", 0.9, None),
    ]
    assert run["metrics"] == metrics
    again = connected(fold, epochs=1)
    again.update_config({"fold": 3})
    again.log("lrs", 0.3, 1)
    again.log("lrs", 0.4, 2)
    assert run["metrics"] == [*metrics, ("lrs", 0.4, 2)]
    assert run["status"] == "RUNNING"
    assert run["parameters"]["fold"] == 0
    connected(fold)
    assert "run2" in Client.store["http://server"]


def test_a_training_and_its_validation(nnunet_folders: Any, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: configuration first, curves per epoch, results of the validation last; also of --val."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer = make_trainer()
    trainer.run_training()
    trainer.perform_actual_validation()
    (run,) = wandb.runs
    config = run.config.values
    assert list(config) == ["plans", "configuration", "fold", "dataset", "hparas"]
    assert (config["configuration"], config["fold"], config["hparas"]["num_epochs"]) == ("2d", 0, 2)
    keys = {(step, key) for step, values in run.sent for key in values}
    curves = {key for key in trainer.logger.my_fantastic_logging if key != "dice_per_class_or_region"}
    curves |= {"dice_per_class_or_region/class_1", "dice_per_class_or_region/class_2"}
    curves |= {"iterations_per_second", "data_wait_share", "memory"}
    assert keys == {(step, key) for step in (0, 1) for key in curves}
    assert set(run.summary) == {
        "current_epoch", "final_val/class_1_dice", "final_val/class_2_dice", "final_val/foreground_dice"
    }  # fmt: skip
    assert run.finished
    again = make_trainer()
    again.load_checkpoint(str(Path(again.output_folder, "checkpoint_final.pth")))
    again.perform_actual_validation()
    assert wandb.runs[1].arguments["resume"] == "allow"
    assert "final_val/foreground_dice" in wandb.runs[1].summary


def make_trainer() -> nnUNetTrainer:
    trainer = nnUNetTrainer(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), torch.device("cpu"))
    trainer.override(epochs=2, iterations=1, precision="float32")
    return trainer


def test_loggers_of_ones_own_survive_the_flags(nnunet_folders: Any) -> None:
    trainer = nnUNetTrainer(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), torch.device("cpu"))
    trainer.logger.loggers.append(own := Run(0))
    own.update_config = lambda config: own.config.values.update(config)
    trainer.override(epochs=2)
    assert trainer.logger.loggers == [own]
    assert own.config.values["fold"] == 0


# the packages themselves


@pytest.fixture
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, nnunet_folders: Any) -> Iterator[Path]:
    """A fold's folder, with the service of the test's first word switched on."""
    name = request.function.__name__.split("_")[1]
    pytest.importorskip(name)
    monkeypatch.setenv(SWITCHES[name], "1")
    yield nnunet_folders.results / "Dataset001_X" / "T__P__2d" / "fold_0"


def train(folder: Path, epochs: range, resume: bool = False) -> None:
    """Send some epochs and a result."""
    logger = connected(folder, epochs=epochs.start if resume else 0)
    for epoch in epochs:
        logger.log("train_losses", float(epoch), epoch)
        logger.log("dice_per_class_or_region", [0.1 * epoch, math.nan], epoch)
    logger.log_summary("final_val/foreground_dice", 0.75)
    assert len(logger.loggers) == 1, "it has failed"
    logger.close()


def test_tensorboard_itself(real: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(real, range(3))
    train(real, range(2, 4), resume=True)
    events = EventAccumulator(str(real / "tensorboard" / "training_1"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_losses")] == [(n, float(n)) for n in range(4)]
    assert events.Scalars("dice_per_class_or_region/class_1")[-1].value == pytest.approx(0.3)
    assert events.Scalars("final_val/foreground_dice")[-1].value == 0.75
    assert "config/fold/text_summary" in events.Tags()["tensors"]


def test_mlflow_itself(real: Path, nnunet_folders: Any) -> None:
    from mlflow import MlflowClient

    train(real, range(3))
    train(real, range(2, 4), resume=True)
    client = MlflowClient(f"sqlite:///{nnunet_folders.results / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("nnunet").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train_losses")
    assert [(metric.step, metric.value) for metric in history] == [(n, float(n)) for n in range(4)]
    assert run.data.metrics["final_val/foreground_dice"] == 0.75
    assert run.data.params == {"fold": "0"}
    assert (run.info.status, run.info.run_name) == ("FINISHED", "Dataset001_X/T__P__2d/fold_0")
    assert run.info.artifact_uri.startswith((nnunet_folders.results / "mlflow" / "artifacts").as_uri())


def test_wandb_itself(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(real, range(2))
    first = earlier_run(real)
    assert first is not None
    train(real, range(1, 3), resume=True)
    assert earlier_run(real) == first
    train(real, range(1))
    assert earlier_run(real) != first
    assert len(list((real / "wandb").glob("offline-run-*"))) == 3


def test_wandb_with_wrong_settings(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_wandb_mode", "nonsense")
    with pytest.raises(ArgumentError, match="nnUNet_wandb_mode=nonsense"):
        start_external_loggers(real, False, 0)
