"""Experiment tracking with MLflow, a second sink for numbers that are written elsewhere too.

Tracking never stops, slows or delays training: all of it, the import of MLflow included, happens
in one daemon thread, and the first failure costs one warning and ends it.
"""

import contextlib
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmaml_tf.tracking.run import THREAD, Example, Run, now
from mmaml_tf.tracking.store import ANSWER_TIMEOUT, absolute, probe

_LOGGER = logging.getLogger("mmaml_tf.tracking")

# Seconds.
_CLOSE_TIMEOUT = 10
_CLOSE_TIMEOUT_ANSWERED = 120

# What the user has set in the environment goes before these.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_TIMEOUT),
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
        self.uri, database = absolute(uri)
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
            target=self._work, args=(arguments,), name=THREAD, daemon=True
        )
        self._worker.start()

    def log_metrics(self, row: dict) -> None:
        """Stores a row of metrics.

        Args:
            row: "step" and numbers; what is no number is left out, and so is a metric that the
                run already has for this step or a later one.
        """
        self._put("metrics", dict(row), now())

    def log_summary(self, metrics: dict) -> None:
        """Stores final numbers; nested ones are named "overall.mean". Others are left out."""
        self._put("summary", dict(_flatten(metrics)), now())

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
        inputs = [Example(key, array) for key, array in example.items()]
        self._log_model(saved_model, "pyfunc_model.py", name, inputs, prediction)

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
            example: inputs of `pyfunc_policy`'s `predict`; the rollouts are [T, S, R, L, ...].
                Types and sizes become the signature, in which T, S, R and the observations acted
                on may vary; the first of each becomes the model's input example.
        """
        inputs = [
            Example(key, array, free=3 if key in ("observations", "actions", "rewards") else 2)
            for key, array in example.items()
        ]
        # Controls [T, N, A].
        control = np.zeros([1, 1, example["actions"].shape[-1]], np.float32)
        self._log_model(saved_model, "pyfunc_policy.py", name, inputs, control)

    def _log_model(self, saved_model, script, name, inputs, output):
        path = Path(saved_model).absolute()
        self._put("model", path, script, name, inputs, Example(None, output))

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
            probe(self.uri, arguments["database"])
            self._answered = True
            run = Run(self.uri, **arguments)
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


def _flatten(nested, prefix=""):
    """Yields (dotted name, value) of a nested mapping."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
