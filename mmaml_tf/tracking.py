"""Experiment tracking with MLflow, a second sink for numbers that are written elsewhere too.

Only this file, `mlflow_model` and `mlflow_policy` know MLflow. Tracking never stops, slows or
delays training: all of it, the import of MLflow included, happens in one daemon thread, and the
first failure costs one warning and ends it.
"""

import contextlib
import http.client
import json
import logging
import os
import queue
import re
import sqlite3
import ssl
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np

_LOGGER = logging.getLogger(__name__)
_THREAD = "mmaml_tf.tracking"
_KEY_TAG = "mmaml_tf.key"

# Seconds.
_CONNECT_TIMEOUT = 2
_ANSWER_TIMEOUT = 5
_PERIOD = 5
_CLOSE_TIMEOUT = 10
_CLOSE_TIMEOUT_ANSWERED = 120
_RETRY_PAUSES = (0.2, 0.5, 1, 2, 4, 8)

# MLflow's limits.
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_DIGEST_LENGTH = 36

# What the user has set in the environment goes before these.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_ANSWER_TIMEOUT),
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker:
    """One MLflow run, written in the background.

    All methods return at once, except `close`, and none raises because of MLflow: the first
    failure logs a warning, and everything after it is dropped. CPU, memory and GPU use are
    recorded every 5 s. As a context manager it closes itself, as failed after an exception.

    Args:
        experiment: name of the experiment, made if need be.
        run_name: name that is shown for the run.
        key: identifies the run: the experiment's run with this key is continued, else a new one
            is made. A continued run keeps the parameters it has.
        params: parameters; nested ones are named "cell.inner_steps".
        tags: tags.
        uri: MLflow's tracking URI; None means the environment's MLFLOW_TRACKING_URI, or else
            "sqlite:///mlflow.db". A new experiment in a SQLite file keeps its artifacts in
            `mlruns` beside the file.
    """

    def __init__(
        self,
        experiment: str,
        run_name: str,
        key: str,
        params: dict | None = None,
        tags: dict | None = None,
        uri: str | None = None,
    ):
        # Here and not in the thread: changing the environment while others read it is unsafe.
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self.uri, database = _absolute(uri)
        # Waiting for a file is waiting for this process's own work, not for an answer.
        self._answered = database is not None
        self._live = True
        self._lock = threading.Lock()
        self._queue = queue.SimpleQueue()
        arguments = {
            "experiment": experiment,
            "run_name": run_name,
            "key": key.replace("'", "_"),
            "params": {name: str(value) for name, value in _flatten(params or {})},
            "tags": {name: str(value) for name, value in _flatten(tags or {})},
            "database": database,
        }
        self._worker = threading.Thread(
            target=self._work, args=(arguments,), name=_THREAD, daemon=True
        )
        self._worker.start()

    def log_metrics(self, row: dict) -> None:
        """Stores a row of metrics.

        Args:
            row: "step" and numbers; what is no number is left out, and so is a metric that the
                run already has for this step or a later one.
        """
        self._put("metrics", dict(row), _now())

    def log_summary(self, metrics: dict) -> None:
        """Stores final numbers; nested ones are named "overall.mean". Others are left out."""
        self._put("summary", dict(_flatten(metrics)), _now())

    def log_dataset(self, name: str, digest: str, config: dict) -> None:
        """Records a dataset that the run uses.

        Args:
            name: its name.
            digest: its digest. MLflow's own field has room for 36 characters; the whole digest is
                in the dataset's profile.
            config: how it was made, as plain values.
        """
        source = json.dumps({"tags": config}, default=str, skipkeys=True)
        self._put("dataset", name, digest, source)

    def log_artifact(self, path, folder: str | None = None) -> None:
        """Stores a file or a directory, which must stay as it is until `close` returns.

        Args:
            path: the file or directory.
            folder: directory of the run's artifacts to put it in.
        """
        self._put("artifact", Path(path).absolute(), folder)

    def log_model(
        self,
        saved_model,
        name: str = "model",
        *,
        example: dict[str, np.ndarray],
        prediction: np.ndarray,
    ) -> None:
        """Stores an exported model as a pyfunc that loads without this package.

        Args:
            saved_model: directory of a SavedModel with an `adapt_and_predict` endpoint; it must
                stay as it is until `close` returns.
            name: name of the model in the run.
            example: the endpoint's inputs by name, [T, K, ...], [T, Q, ...] or [T]. Their types
                and their sizes after the first two axes become the signature; the first points of
                the first task become the model's input example.
            prediction: an array like the endpoint's result, [T, Q, ...]; of it only the type and
                the sizes after the first two axes count.
        """
        inputs = [_Example(key, array) for key, array in example.items()]
        self._log_model(saved_model, "mlflow_model.py", name, inputs, prediction)

    def log_policy(
        self,
        saved_model,
        name: str = "model",
        *,
        example: dict[str, np.ndarray],
    ) -> None:
        """Stores an exported policy as a pyfunc that loads without this package.

        Args:
            saved_model: directory of a SavedModel that a policy learner's `export` wrote; it must
                stay as it is until `close` returns.
            name: name of the model in the run.
            example: inputs of `mlflow_policy`'s `predict`; the rollouts are [T, S, R, L, ...].
                Types and sizes become the signature, in which T, S, R and the observations acted
                on may vary; the first of each becomes the model's input example.
        """
        inputs = [
            _Example(key, array, free=3 if key in ("observations", "actions", "rewards") else 2)
            for key, array in example.items()
        ]
        # Controls [T, N, A].
        control = np.zeros([1, 1, example["actions"].shape[-1]], np.float32)
        self._log_model(saved_model, "mlflow_policy.py", name, inputs, control)

    def _log_model(self, saved_model, script, name, inputs, output):
        path = Path(saved_model).absolute()
        self._put("model", path, script, name, inputs, _Example(None, output))

    def close(self, finished: bool = True) -> None:
        """Stores what is left and ends the run; waits for that, but not for ever.

        It waits for 10 s, or, if the server has been answering, 120 s. A SQLite file counts as a
        server that answers.

        Args:
            finished: whether the run's status becomes FINISHED, or else FAILED.
        """
        if not self._live:
            return
        self._put("close", "FINISHED" if finished else "FAILED")
        start = time.monotonic()
        while self._worker.is_alive():
            limit = _CLOSE_TIMEOUT_ANSWERED if self._answered else _CLOSE_TIMEOUT
            if time.monotonic() - start > limit:
                self._give_up(f"no answer for {limit} s")
                break
            self._worker.join(0.1)
        self._live = False

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(finished=kind is None)

    def _put(self, job, *arguments):
        if self._live:
            self._queue.put((job, arguments))

    def _work(self, arguments):
        job, run = "start", None
        try:
            _probe(self.uri, arguments["database"])
            self._answered = True
            run = _Run(self.uri, **arguments)
            due = time.monotonic() + run.period
            while job != "close":
                if time.monotonic() >= due:
                    job, values = "tick", ()
                    due = time.monotonic() + run.period
                else:
                    try:
                        job, values = self._queue.get(timeout=max(0, due - time.monotonic()))
                    except queue.Empty:
                        continue
                getattr(run, job)(*values)
        except Exception as error:
            self._give_up(f"{job}: {type(error).__name__}: {str(error).strip()[:300]}")
            if run is not None and run.local:
                # Numbers are missing, so it must not look as if it went on or was complete.
                with contextlib.suppress(Exception):
                    run.client.set_terminated(run.id, "FAILED")

    def _give_up(self, reason):
        message = f"tracking at {self.uri} stopped ({reason}); training goes on without it."
        with self._lock:
            if self._live:
                # First the warning: `close` returns at once when nothing is alive any more.
                _LOGGER.warning("%s", re.sub(r"//[^/@\s]*@", "//***@", message))
                self._live = False


class _Run:
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
        with _locked(database):
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
        step = int(row.pop("step"))
        for name, value in row.items():
            name = _legal(name)
            if _is_number(value) and step > self._last_step(name):
                self.last_steps[name] = step
                self._add(name, value, timestamp, step)

    def summary(self, metrics, timestamp):
        for name, value in metrics.items():
            if _is_number(value):
                self._add(_legal(name), value, timestamp, 0)

    def record_metrics(self, metrics, step):
        """Takes the system's metrics, in place of MLflow's logger."""
        for name, value in metrics.items():
            self._add(name, value, _now(), step)

    def tick(self):
        self.monitor.collect_metrics()
        self.monitor.publish_metrics(self.monitor.aggregate_metrics())
        self._flush()

    def dataset(self, name, digest, source):
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
        self._retry(self.client.log_artifact, self.id, str(path), folder)

    def model(self, saved_model, script, name, inputs, output):
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


def _locked(database):
    """Returns a context that one process at a time enters, if there is a SQLite file."""
    if database is None:
        return contextlib.nullcontext()
    from filelock import FileLock

    return FileLock(database.with_name(f".{database.name}.lock"), timeout=60)


def _absolute(uri):
    """Returns the URI with an absolute path, and that path, if it names a SQLite file."""
    match = re.fullmatch(r"sqlite:///([^?:]+)(\?.*)?", uri)
    if match is None:
        return uri, None
    path = Path(match[1]).absolute()
    return f"sqlite:///{path}{match[2] or ''}", path


def _probe(uri, database):
    """Finds out at once what MLflow would find out after minutes of retries.

    Raises:
        OSError: if a server refuses the connection or does not answer.
        sqlite3.Error: if a SQLite file cannot be written, for another reason than that another
            process is writing it.
    """
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
        return
    url = urlsplit(uri)
    if url.scheme not in ("http", "https"):
        return
    if url.scheme in getproxies() and not proxy_bypass(url.hostname):
        return
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=_CONNECT_TIMEOUT)
    # Any answer is one, be it that MLflow has to know a certificate or a password.
    with (
        contextlib.closing(connection),
        contextlib.suppress(ssl.SSLError, http.client.HTTPException),
    ):
        connection.connect()
        connection.sock.settimeout(_ANSWER_TIMEOUT)
        connection.request("GET", f"{url.path.rstrip('/')}/health")
        connection.getresponse()


def _flatten(nested, prefix=""):
    """Yields (dotted name, value) of a nested mapping."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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


class _Example:
    """A copy of an input's or output's first element along the axes that may vary in size."""

    def __init__(self, name, array, free=2):
        array = np.asarray(array)
        self.name, self.free = name, min(array.ndim, free)
        self.array = array[(slice(1),) * self.free].copy()

    def spec(self):
        from mlflow.types import TensorSpec

        shape = (*[-1] * self.free, *self.array.shape[self.free :])
        return TensorSpec(self.array.dtype, shape, self.name)


def _is_not_ours(record):
    return record.threadName != _THREAD


def _now():
    return int(1000 * time.time())
