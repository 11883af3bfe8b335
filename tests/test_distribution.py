"""Training on several devices and in several processes gives what training on one device gives."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import distributed_training
import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

HERE = Path(__file__).parent
SCRIPT = HERE / "distributed_training.py"


def start(file, devices, **environment):
    """Starts a process that trains all learners; returns it, and the file it writes."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, SCRIPT, file, str(devices)]
    environment = os.environ | {"PYTHONPATH": path} | environment
    output = open(file.with_suffix(".log"), "w")  # noqa: SIM115
    with output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    return process, file


def cluster(folder, size):
    """Starts a process for each of a cluster of hosts on this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(size)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for index in range(size):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        yield start(folder / f"host{index}.npz", 1, TF_CONFIG=config)


def finish(*started):
    """Returns the arrays that processes wrote."""
    for process, file in started:
        log = file.with_suffix(".log")
        assert process.wait(timeout=600) == 0, log.read_text()[-3000:]
    return [dict(np.load(file)) for _, file in started]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one device gives, and the folder with its checkpoints."""
    folder = tmp_path_factory.mktemp("one")
    (found,) = finish(start(folder / "one.npz", 1))
    return found, folder


@pytest.fixture(scope="module", params=["2 devices", "4 devices", "2 processes"])
def several(request, one, tmp_path_factory):
    """What each process of a division gives, and the folder with their checkpoints."""
    del one  # which is not to run at the same time
    folder = tmp_path_factory.mktemp("several")
    number, kind = request.param.split()
    if kind == "processes":
        return finish(*cluster(folder, int(number))), folder
    return finish(start(folder / "several.npz", int(number))), folder


CASES = (
    "maml", "mmaml", "multi_maml", "moving_averages", "proto_net", "policies_of_modes",
    "interrupted",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_weights_and_logs_do_not_depend_on_the_division(one, several, case):
    expected, _ = one
    names = [name for name in expected if name.startswith(f"{case}: ")]
    assert any("array" in name for name in names)
    for found in several[0]:
        assert set(found) == set(expected)
        for name in names:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name
            )


def test_a_run_goes_on_with_another_number_of_devices(one, several, tmp_path):
    rows, weights = [], []
    for name, (_, folder) in {"one": one, "several": several}.items():
        # A copy, as several divisions are compared with one.
        checkpoints = shutil.copytree(folder / "checkpoints0", tmp_path / name)
        learner = distributed_training.run_learner()
        history = distributed_training.run(learner, checkpoints, 8)
        assert [row["step"] for row in history] == [2, 4, 6, 8]
        rows.append([list(row.values()) for row in history])
        weights.append([v.numpy() for v in learner.variables])
    np.testing.assert_allclose(*rows, rtol=1e-4)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# -- what cannot be divided -----------------------------------------------------------------------


@pytest.fixture
def strategy():
    """A strategy with one device; what needs more is told of two."""
    return tf.distribute.MirroredStrategy(["CPU:0"])


def of_two_replicas(learner):
    learner.replicas.count = learner.replicas.here = 2
    return learner


def test_a_batch_that_does_not_divide_is_refused():
    learner = of_two_replicas(factory.learner("MAML"))
    with pytest.raises(ValueError, match="7 tasks cannot be divided evenly among 2 replicas"):
        learner.fit(factory.episodes(tasks=7), verbose=0)


def test_an_encoder_that_sees_all_tasks_in_training_is_refused():
    x, y = keras.Input((None, 1)), keras.Input((None, 1))
    both = keras.layers.Dropout(0.5)(keras.layers.Concatenate()([x, y]))
    encoder = keras.Model([x, y], keras.layers.GlobalAveragePooling1D()(both))
    learner = mm.MMAML(factory.mlp(), encoder=encoder, inner_loop=factory.inner_loop(1))
    learner.compile(jit_compile=False)
    with pytest.raises(ValueError, match=r"the encoder changes .*seed.* in training"):
        of_two_replicas(learner).fit(factory.episodes(), verbose=0)


def test_several_steps_an_execution_are_refused():
    learner = of_two_replicas(mm.MAML(factory.mlp(), inner_loop=factory.inner_loop(1)))
    with pytest.raises(ValueError, match="steps_per_execution=3"):
        learner.compile(steps_per_execution=3)


def test_parts_made_elsewhere_are_refused(strategy):
    network = factory.mlp()
    network.build((None, None, 1))
    with strategy.scope():
        optimizer = keras.optimizers.Adam()
        learner = mm.MAML(network, inner_loop=factory.inner_loop(1))
        own = factory.learner("MAML", jit=None)
    learner.compile()
    with pytest.raises(ValueError, match=r"dense.* was not made under the learner's strategy"):
        learner.build_for(factory.episodes())
    with pytest.raises(ValueError, match="the optimizer was not made under"):
        own.compile(keras.optimizers.Adam())
    with pytest.raises(ValueError, match="the optimizer was not made under"):
        factory.learner("MAML", jit=None).compile(optimizer)


def test_a_learner_is_compiled_in_its_scope_and_trained_outside(strategy):
    elsewhere = factory.learner("MAML", jit=None)
    with strategy.scope():
        with pytest.raises(ValueError, match=r"made outside of strategy\.scope"):
            elsewhere.compile()
        learner = factory.learner("MAML")
        with pytest.raises(ValueError, match=r"cannot be called inside strategy\.scope"):
            learner.fit(factory.episodes())
    other = tf.distribute.MirroredStrategy(["CPU:0"])
    with other.scope(), pytest.raises(ValueError, match="made under another strategy"):
        learner.compile()
    learner.fit(factory.episodes(), verbose=0)
    assert learner.optimizer.iterations.numpy() == 1


def test_what_a_learner_of_a_strategy_can_do_besides(strategy, tmp_path):
    with strategy.scope():
        learner = factory.learner("MMAML")
        metric = keras.metrics.MeanSquaredError("error")
        learner.compile(keras.optimizers.Adam(1e-2), "mse", metrics=[metric], jit_compile=False)
    batch = factory.episodes()
    learner.fit(batch, verbose=0)
    logs = learner.evaluate(batch, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["error"], rel=1e-5)
    predicted = learner.predict(batch, verbose=0)
    adapted = learner.adapt(batch.support_x, batch.support_y)
    np.testing.assert_allclose(adapted(batch.query_x), predicted, rtol=1e-5, atol=1e-6)
    report = mm.evaluate(learner, batch)
    assert np.mean(report.measures["error"][-1]) == pytest.approx(logs["loss"], rel=1e-5)
    learner.export(tmp_path / "exported")
    exported = tf.saved_model.load(tmp_path / "exported")
    found = exported.adapt_and_predict(*batch[:3])
    np.testing.assert_allclose(found, predicted, rtol=1e-5, atol=1e-6)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(loaded.predict(batch, verbose=0), predicted, rtol=1e-5, atol=1e-6)
    assert loaded.replicas.strategy is None


def test_a_part_of_a_batch_is_for_its_own_host():
    tasks = mm.tasks.FunctionTasks(support=3, queries=2)
    learner = factory.learner("MAML")
    learner.fit(tasks.dataset(4, 0, shard=(0, 1)), steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="this is host 0 of 1"):
        learner.fit(tasks.dataset(4, 0, shard=(0, 2)), steps_per_epoch=1, verbose=0)
