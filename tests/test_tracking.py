"""Tracking: what was logged is what a client reads back, and no failure costs more than a warning.

Servers are on 127.0.0.1 only, and stores in temporary directories.
"""

import contextlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmaml_tf import tracking
from mmaml_tf.tracking import Tracker
from mmaml_tf.tracking import run as runs
from mmaml_tf.tracking import store as stores
from mmaml_tf.tracking import tracker as trackers

mlflow = pytest.importorskip("mlflow")

EXPERIMENT = "tests"


@pytest.fixture(autouse=True)
def environment():
    """Undoes what a tracker sets in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The URI of one store for all tests, as making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/made/mlflow.db"


@pytest.fixture
def warned(caplog):
    """Returns the warnings so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if r.name == "mmaml_tf.tracking"]


def read(uri, key):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`mmaml_tf.key` = '{key}'")
    return client, run


def history(client, run, name):
    metrics = client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in metrics)


def rows(steps):
    return [{"step": step, "loss": 1 / step, "skipped": 0} for step in steps]


def test_everything_is_read_back(store, tmp_path, monkeypatch, warned, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    file = tmp_path / "curve.csv"
    file.write_text("step,loss\n")
    config = {"modes": ["sine", "line"], "noise": 0.3}
    params = {"cell": {"inner_steps": 5, "modes": ["sine"]}, "seed": 1}
    with Tracker(EXPERIMENT, "mmaml-1", "all", params, {"scale": "smoke"}) as tracker:
        tracker.log_metrics({"step": 100, "loss": 2.5, "loss @sine": np.float32(0.5), "note": "x"})
        tracker.log_metrics({"step": 200, "loss": math.nan, "skipped": 3})
        tracker.log_summary({"overall": {"mean": 0.25, "half_width": None}, "cell": "mmaml"})
        tracker.log_dataset("held_out", "ab" * 32, config)
        tracker.log_artifact(file, "curves")
    assert not warned()
    assert capfd.readouterr() == ("", "")

    client, run = read(store, "all")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mmaml-1"
    assert run.data.params == {"cell.inner_steps": "5", "cell.modes": "['sine']", "seed": "1"}
    assert run.data.tags["scale"] == "smoke"
    (first, (step, value)) = history(client, run, "loss")
    assert first == (100, 2.5) and step == 200 and math.isnan(value)
    assert history(client, run, "loss _sine") == [(100, 0.5)]
    assert history(client, run, "skipped") == [(200, 3)]
    assert run.data.metrics["overall.mean"] == 0.25
    assert not {"note", "cell", "overall.half_width"} & set(run.data.metrics)
    (dataset,) = [given.dataset for given in run.inputs.dataset_inputs]
    assert dataset.name == "held_out"
    assert dataset.digest == ("ab" * 32)[:36]
    assert json.loads(dataset.profile)["digest"] == "ab" * 32
    assert json.loads(dataset.source)["tags"] == config
    assert [f.path for f in client.list_artifacts(run.info.run_id, "curves")] == [
        "curves/curve.csv"
    ]
    for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes"):
        assert len(history(client, run, f"system/{name}")) >= 1
    assert history(client, run, "system/system_memory_usage_megabytes")[0][1] > 0


def test_continued_run_has_each_step_once(store, warned):
    with (
        pytest.raises(KeyboardInterrupt),
        Tracker(EXPERIMENT, "a", "again", {"seed": 1}, uri=store) as tracker,
    ):
        for row in rows([1, 2, 3]):
            tracker.log_metrics(row)
        raise KeyboardInterrupt
    client, run = read(store, "again")
    assert run.info.status == "FAILED"

    with Tracker(EXPERIMENT, "b", "again", {"seed": 2, "threads": 4}, uri=store) as tracker:
        for row in rows([1, 2, 3, 4, 5, 4]):
            tracker.log_metrics(row)
        tracker.log_metrics({"step": 2, "gap": 1.5})
    _, again = read(store, "again")
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert again.info.run_name == "b"
    assert again.data.params == {"seed": "1", "threads": "4"}
    assert history(client, again, "loss") == [(s, 1 / s) for s in (1, 2, 3, 4, 5)]
    assert history(client, again, "skipped") == [(s, 0) for s in (1, 2, 3, 4, 5)]
    assert history(client, again, "gap") == [(2, 1.5)]
    samples = history(client, again, "system/cpu_utilization_percentage")
    assert [step for step, _ in samples] == [0, 1]
    assert not warned()


def test_metrics_go_in_large_batches_from_one_daemon_thread(store, monkeypatch):
    sizes, threads = [], set()
    original = mlflow.MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), params=(), *rest):
        sizes.append(len(metrics))
        threads.add(threading.current_thread())
        return original(self, run_id, metrics, params, *rest)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "60")
    before = set(threading.enumerate())
    with Tracker(EXPERIMENT, "run", "batches", uri=store) as tracker:
        for row in rows(range(1, 1201)):
            tracker.log_metrics(row)
        assert all(thread.daemon for thread in set(threading.enumerate()) - before)
    assert sum(sizes) > 2400
    assert max(sizes) == 1000
    assert len(sizes) <= 4
    (thread,) = threads
    assert thread.daemon and thread is not threading.main_thread()
    client, run = read(store, "batches")
    assert history(client, run, "loss") == [(s, 1 / s) for s in range(1, 1201)]


def test_caller_never_waits_and_close_gives_up_with_one_warning(monkeypatch, tmp_path, warned):
    released = threading.Event()

    def stuck(*_):
        released.wait()
        raise OSError("too late")

    monkeypatch.setattr(trackers, "probe", stuck)
    monkeypatch.setattr(trackers, "_CLOSE_TIMEOUT", 0.5)
    start = time.monotonic()
    tracker = Tracker(EXPERIMENT, "run", "stuck", uri="http://127.0.0.1:9")
    for row in rows(range(1, 1001)):
        tracker.log_metrics(row)
    tracker.log_summary({"a": 1})
    tracker.log_dataset("d", "0", {})
    tracker.log_artifact(tmp_path)
    x = np.zeros((1, 2, 1), np.float32)
    tracker.log_model(tmp_path, example={"support_x": x}, prediction=x)
    assert time.monotonic() - start < 5
    tracker.close()
    assert 0.5 <= time.monotonic() - start < 10
    released.set()
    tracker._worker.join(5)
    tracker.log_metrics({"step": 1})
    tracker.close()
    (warning,) = warned()
    assert "no answer" in warning and "http://127.0.0.1:9" in warning and "goes on" in warning


@pytest.mark.parametrize("failure", ["no database", "no mlflow", "no file", "no step"])
def test_failure_is_one_warning(failure, store, tmp_path, monkeypatch, warned):
    monkeypatch.setattr(runs, "_RETRY_PAUSES", (0.01,))
    if failure == "no database":
        store = f"sqlite:///{tmp_path}/mlflow.db"
        (tmp_path / "mlflow.db").write_text("this is no database\n" * 100)
    if failure == "no mlflow":
        monkeypatch.setitem(sys.modules, "mlflow", None)
    start = time.monotonic()
    with Tracker(EXPERIMENT, "run", failure, uri=store) as tracker:
        if failure == "no file":
            tracker.log_artifact(tmp_path / "absent")
        if failure == "no step":
            tracker.log_metrics({"loss": 1})
        for row in rows(range(1, 100)):
            tracker.log_metrics(row)
        tracker.log_artifact(tmp_path / "absent too")
    assert time.monotonic() - start < 5
    (warning,) = warned()
    assert store in warning and "goes on" in warning
    if failure in ("no file", "no step"):
        assert read(store, failure)[1].info.status == "FAILED"


def test_relative_file_is_meant_from_where_the_tracker_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mlflow.db"
    assert stores.absolute("sqlite:///mlflow.db") == (f"sqlite:///{path}", path)
    assert stores.absolute(f"sqlite:///{path}") == (f"sqlite:///{path}", path)
    assert stores.absolute("http://a:1/b") == ("http://a:1/b", None)


def test_password_is_not_shown(warned):
    with closed_port() as port:
        Tracker(EXPERIMENT, "r", "k", uri=f"http://me:secret@127.0.0.1:{port}").close()
    (warning,) = warned()
    assert "secret" not in warning and "127.0.0.1" in warning


# Imports tracking alone, as the whole package takes seconds.
TRACK = """
import logging, sys, time, types
logging.basicConfig()
path, uri, key = sys.argv[1:]
sys.modules["mmaml_tf"] = types.ModuleType("mmaml_tf")
sys.modules["mmaml_tf"].__path__ = [path]
from mmaml_tf import tracking
start = time.monotonic()
with tracking.Tracker("tests", key, key, {"seed": 1}, uri=uri) as tracker:
    made = time.monotonic() - start
    for step in range(1, 2001):
        tracker.log_metrics({"step": step, "loss": 1 / step})
closed = time.monotonic() - start
print(made, closed, "mlflow" in sys.modules, flush=True)
"""


def start_process(uri, key="key", **environment):
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | environment
    return subprocess.Popen(
        [sys.executable, "-c", TRACK, str(Path(tracking.__file__).parents[1]), uri, key],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish_process(process):
    """Returns seconds in the constructor, until closed and until exited; whether mlflow; stderr."""
    line = process.stdout.readline()
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    made, closed, imported = line.split()
    return float(made), float(closed), time.monotonic() - start, imported == "True", errors


@contextlib.contextmanager
def closed_port():
    """A port that refuses connections, and that no other process gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_refused_connection_costs_a_warning():
    with closed_port() as port:
        uri = f"http://127.0.0.1:{port}"
        made, closed, exited, imported, errors = finish_process(start_process(uri))
    assert made < 2 and closed < 5 and exited < 5
    assert not imported
    (warning,) = errors.splitlines()
    assert uri in warning and "refused" in warning and "goes on" in warning


def test_silent_server_costs_a_warning():
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        made, closed, exited, imported, errors = finish_process(start_process(uri))
    assert made < 2 and closed < 15 and exited < 5
    assert not imported
    (warning,) = errors.splitlines()
    assert uri in warning and "timed out" in warning and "goes on" in warning


class DyingServer(BaseHTTPRequestHandler):
    """Does what starting a run needs, and falls silent when metrics come."""

    def do_GET(self):
        experiment = {"experiment_id": "1", "name": EXPERIMENT, "lifecycle_stage": "active"}
        if self.path.startswith("/health"):
            self.answer({})
        elif "experiments/get-by-name" in self.path:
            self.answer({"experiment": experiment})
        elif "metrics/get-history" in self.path:
            self.answer({"metrics": []})
        else:
            self.send_error(404)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        info = {"run_id": "a" * 32, "run_uuid": "a" * 32, "experiment_id": "1"}
        self.server.posted.append(self.path)
        if "runs/search" in self.path:
            self.answer({"runs": []})
        elif "runs/create" in self.path:
            self.answer({"run": {"info": info | {"status": "RUNNING"}, "data": {}}})
        elif "metrics" in request:
            self.server.dead.wait(60)
        else:
            self.answer({})

    def answer(self, body):
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_server_that_dies_in_the_middle_costs_a_warning():
    server = ThreadingHTTPServer(("127.0.0.1", 0), DyingServer)
    server.posted, server.dead = [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    try:
        process = start_process(uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1")
        made, closed, exited, imported, errors = finish_process(process)
    finally:
        server.dead.set()
        server.shutdown()
        server.server_close()
    assert imported and any("runs/create" in path for path in server.posted)
    assert made < 2 and closed < 30 and exited < 5
    (warning,) = errors.splitlines()
    assert uri in warning and "log-batch" in warning and "goes on" in warning


def test_two_processes_make_the_same_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for process in [start_process(uri, key) for key in ("a", "b")]:
        assert not finish_process(process)[-1]
    for key in ("a", "b"):
        client, run = read(uri, key)
        assert run.info.status == "FINISHED"
        assert len(history(client, run, "loss")) == 2000


LOAD = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mmaml_tf":
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
try:
    import mmaml_tf
except ImportError:
    pass
else:
    raise SystemExit("mmaml_tf could be imported")
import mlflow, numpy as np

uri, run, directory = sys.argv[1:]
mlflow.set_tracking_uri(uri)
for name in ("model", "bank"):
    model = mlflow.pyfunc.load_model(f"runs:/{run}/{name}")
    inputs = dict(np.load(f"{directory}/{name}.npz"))
    np.save(f"{directory}/{name}.npy", model.predict(inputs))
"""


def test_model_loads_and_predicts_without_the_package(store, tmp_path, warned):
    generator = np.random.default_rng(0)
    floats = [tf.TensorSpec((None, None, 1), tf.float32)] * 3
    module = tf.Module()
    module.scale = tf.Variable(3.0)

    def predict(support_x, support_y, query_x):
        slope = tf.reduce_sum(support_x * support_y, 1, keepdims=True)
        return module.scale * slope * query_x

    def predict_mode(support_x, support_y, query_x, mode):
        return predict(support_x, support_y, query_x) + tf.cast(mode, tf.float32)[:, None, None]

    def inputs(tasks, supports, queries):
        sizes = {"support_x": supports, "support_y": supports, "query_x": queries}
        return {k: generator.random((tasks, n, 1), np.float32) for k, n in sizes.items()}

    expected = {}
    with Tracker(EXPERIMENT, "run", "model", uri=store) as tracker:
        tracker.log_metrics({"step": 7, "loss": 1})
        for name, function, specs, extra in [
            ("model", predict, [], {}),
            ("bank", predict_mode, [tf.TensorSpec((None,), tf.int32)], {"mode": np.int32([4, 2])}),
        ]:
            module.adapt_and_predict = tf.function(function, input_signature=floats + specs)
            tf.saved_model.save(module, str(tmp_path / name))
            example = inputs(2, 3, 4) | extra
            prediction = function(**example).numpy()
            tracker.log_model(tmp_path / name, name, example=example, prediction=prediction)
            # Other numbers of support and query points than the signature was made from.
            given = inputs(2, 6, 5) | extra
            np.savez(tmp_path / f"{name}.npz", **given)
            expected[name] = function(**given).numpy()
    assert not warned()

    client, run = read(store, "model")
    command = [sys.executable, "-c", LOAD, store, run.info.run_id, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, prediction in expected.items():
        loaded = np.load(tmp_path / f"{name}.npy")
        assert loaded.shape == (2, 5, 1)
        np.testing.assert_allclose(loaded, prediction, rtol=1e-6)

    assert [output.step for output in run.outputs.model_outputs] == [7, 7]
    location = client.get_logged_model(run.outputs.model_outputs[0].model_id).artifact_location
    signature = mlflow.models.Model.load(location).signature
    shapes = {spec.name: spec.shape for spec in signature.inputs}
    assert {k: v for k, v in shapes.items() if k != "mode"} == dict.fromkeys(
        ("support_x", "support_y", "query_x"), (-1, -1, 1)
    )
    assert [spec.shape for spec in signature.outputs] == [(-1, -1, 1)]
    assert (Path(location) / "requirements.txt").read_text().split() == [
        f"mlflow=={mlflow.__version__}",
        f"numpy=={np.__version__}",
        f"tensorflow=={tf.__version__}",
    ]
