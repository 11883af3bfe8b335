"""A run in MLflow with its metrics, datasets and models: only this file knows MLflow's API."""

import json
import logging
import os
import re
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mmaml_tf.tracking.store import locked

#: name of the thread that trackers work in
THREAD = "mmaml_tf.tracking"
_KEY_TAG = "mmaml_tf.key"
# Seconds.
_PERIOD = 5
_RETRY_PAUSES = (0.2, 0.5, 1, 2, 4, 8)

# MLflow's limits.
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_DIGEST_LENGTH = 36


class Run:
    """The MLflow side of a tracker; only its worker thread makes one and calls it.

    Attributes:
        period: seconds between two samples of the system's metrics.
    """

    def __init__(self, uri, experiment, run_name, key, params, tags, database):
        from mlflow import MlflowClient
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        from psutil import cpu_percent

        # MLflow reads the level from the environment only when it is first imported.
        logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
        # It announces each retry, and one warning is enough.
        logging.getLogger("urllib3.connectionpool").addFilter(_is_not_ours)
        cpu_percent()  # The first call of a process returns 0.
        self.local = database is not None
        artifacts = (
            str(database.parent / "mlruns" / quote(experiment, safe="")) if database else None
        )
        # Two processes that make the tables of one file at the same time fail both.
        with locked(database):
            self.client = self._retry(MlflowClient, uri)
            self.experiment = self._retry(self._experiment_id, experiment, artifacts)
        self.id, stored = self._retry(self._open, run_name, {**tags, _KEY_TAG: key})
        self.continued = stored is not None
        self.pending = []
        self.last_steps = {}
        new = [(name, value) for name, value in params.items() if name not in (stored or {})]
        for start in range(0, len(new), _PARAMS_PER_CALL):
            self._log_batch(params=new[start : start + _PARAMS_PER_CALL])
        # Its own thread and logger would each wait for the server in its own way. So it only
        # measures, and what it measures goes with the other metrics.
        self.monitor = SystemMetricsMonitor(
            self.id, sampling_interval=_PERIOD, resume_logging=self.continued, tracking_uri=uri
        )
        self.monitor.mlflow_logger = self
        self.period = self.monitor.sampling_interval

    def metrics(self, row, timestamp):
        """Adds a row of metrics; see `Tracker.log_metrics`."""
        step = int(row.pop("step"))
        for name, value in row.items():
            name = _legal(name)
            if _is_number(value) and step > self._last_step(name):
                self.last_steps[name] = step
                self._add(name, value, timestamp, step)

    def summary(self, metrics, timestamp):
        """Adds final numbers; see `Tracker.log_summary`."""
        for name, value in metrics.items():
            if _is_number(value):
                self._add(_legal(name), value, timestamp, 0)

    def record_metrics(self, metrics, step):
        """Takes the system's metrics, in place of MLflow's logger."""
        for name, value in metrics.items():
            self._add(name, value, now(), step)

    def tick(self):
        """Adds the system's metrics and sends what was added."""
        self.monitor.collect_metrics()
        self.monitor.publish_metrics(self.monitor.aggregate_metrics())
        self._flush()

    def dataset(self, name, digest, source):
        """Records a dataset; see `Tracker.log_dataset`."""
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(
            name,
            digest[:_DIGEST_LENGTH],
            source_type="code",
            source=source,
            profile=json.dumps({"digest": digest}),
        )
        self._retry(self.client.log_inputs, self.id, [DatasetInput(dataset)])

    def artifact(self, path, folder):
        """Stores a file or a directory."""
        self._retry(self.client.log_artifact, self.id, str(path), folder)

    def model(self, saved_model, script, name, inputs, output):
        """Stores a SavedModel as a pyfunc, which the code of `script` runs."""
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema

        specs = Schema([example.spec() for example in inputs])
        # In place of `pyfunc.log_model`, which works on the process's tracking URI and active run.
        logged = self.client.create_logged_model(self.experiment, name, source_run_id=self.id)
        step = max(self.last_steps.values(), default=0)
        self.client.log_outputs(self.id, [LoggedModelOutput(logged.model_id, step)])
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "model"
            pyfunc.save_model(
                str(path),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=self.id,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
                python_model=str(Path(__file__).with_name(script)),
                artifacts={"saved_model": str(saved_model)},
                signature=ModelSignature(specs, Schema([output.spec()])),
                input_example={example.name: example.array for example in inputs},
                pip_requirements=[
                    f"{package}=={version(package)}"
                    for package in ("mlflow", "numpy", "tensorflow")
                ],
            )
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, "READY")

    def close(self, status):
        """Sends what is left and ends the run."""
        self.tick()
        self._retry(self.client.set_terminated, self.id, status)

    def _experiment_id(self, name, artifacts):
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        return self.client.create_experiment(name, artifacts)

    def _open(self, name, tags):
        """Returns the id of the run with this key and its parameters; None if it is new."""
        runs = self.client.search_runs(
            [self.experiment], f"tags.`{_KEY_TAG}` = '{tags[_KEY_TAG]}'", max_results=1
        )
        if not runs:
            run = self.client.create_run(self.experiment, tags=tags, run_name=name)
            return run.info.run_id, None
        run_id = runs[0].info.run_id
        self.client.update_run(run_id, "RUNNING", name)
        for tag, value in tags.items():
            self.client.set_tag(run_id, tag, value)
        return run_id, runs[0].data.params

    def _last_step(self, name):
        if name not in self.last_steps:
            history = self._retry(self.client.get_metric_history, self.id, name)
            self.last_steps[name] = max((metric.step for metric in history), default=-1)
        return self.last_steps[name]

    def _add(self, name, value, timestamp, step):
        from mlflow.entities import Metric

        self.pending.append(Metric(name, float(value), timestamp, step))

    def _flush(self):
        pending, self.pending = self.pending, []
        for start in range(0, len(pending), _METRICS_PER_CALL):
            self._log_batch(metrics=pending[start : start + _METRICS_PER_CALL])

    def _log_batch(self, metrics=(), params=()):
        from mlflow.entities import Param

        params = [Param(_legal(name), value) for name, value in params]
        self._retry(self.client.log_batch, self.id, metrics, params)

    def _retry(self, function, *arguments):
        """Calls a function; on a local file again, as other processes may be using it."""
        for pause in _RETRY_PAUSES if self.local else ():
            try:
                return function(*arguments)
            except Exception:
                time.sleep(pause)
        return function(*arguments)


def _legal(name):
    """Replaces the characters that MLflow forbids in names."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _is_number(value):
    if isinstance(value, str | None):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


class Example:
    """A copy of an input's or output's first element along the axes that may vary in size."""

    def __init__(self, name, array, free=2):
        array = np.asarray(array)
        self.name, self.free = name, min(array.ndim, free)
        self.array = array[(slice(1),) * self.free].copy()

    def spec(self):
        """Returns its type and shape as MLflow describes them."""
        from mlflow.types import TensorSpec

        shape = (*[-1] * self.free, *self.array.shape[self.free :])
        return TensorSpec(self.array.dtype, shape, self.name)


def _is_not_ours(record):
    return record.threadName != THREAD


def now() -> int:
    """Returns the time in milliseconds."""
    return int(1000 * time.time())
