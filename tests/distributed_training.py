"""Trains small learners on some devices of one process, or as one of several; run as a script.

    python distributed_training.py FILE DEVICES

With TF_CONFIG in the environment the process is one of a cluster. Writes the weights and logs of
all cases to FILE, which then do not depend on the number of devices or processes.
"""

import contextlib
import functools
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import factory
import images
import keras
import numpy as np
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.checkpoint import Checkpoints
from mmaml_tf.rl.rollouts import Rollouts
from mmaml_tf.training import Validation, train

TASKS, STEPS = 8, 5


def batches(make):
    """A dataset of STEPS batches."""
    parts = [tf.nest.map_structure(tf.convert_to_tensor, make(step)) for step in range(STEPS)]
    stacked = tf.nest.map_structure(lambda *arrays: tf.stack(arrays), *parts)
    return tf.data.Dataset.from_tensor_slices(stacked)


def functions(step, spoilt=()):
    """Episodes of two modes; those of the spoilt steps have losses that are not finite."""
    episodes = factory.episodes(tasks=TASKS, seed=step)
    if step in spoilt:
        # Of one task, and so of one replica.
        one = tf.reshape(tf.one_hot(3, TASKS), [-1, 1, 1])
        episodes = episodes._replace(query_y=episodes.query_y + 1e30 * one)
    return episodes


def uneven(step):
    """Episodes of which some replicas have more of one mode than others, or none."""
    mode = (np.arange(TASKS) * (step + 1) // 5) % 2
    return functions(step)._replace(mode=tf.constant(mode, tf.int32))


def trained(learner, data, **settings):
    """Trains a learner and returns its arrays and logs by name."""
    history = learner.fit(data, verbose=0, **settings).history
    arrays = [*learner.trainable_variables, *learner.optimizer.variables]
    found = {f"array {i} {v.name}": v.numpy() for i, v in enumerate(arrays)}
    if (strategy := learner.replicas.strategy) is not None:
        for variable in arrays:
            first, *others = strategy.experimental_local_results(variable.value)
            assert all(np.array_equal(first, other) for other in others), variable.path
    return found | {f"log {name}": np.array(values) for name, values in history.items()}


def maml(scope):
    """With XLA, and an outer gradient that is clipped."""
    with scope():
        learner = factory.learner("MAML", jit=None, outer_clip=0.05)
        learner.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=True)
    return trained(learner, batches(functions))


def mmaml(scope):
    """With rates that are learned, phases of training, an update that is skipped, and a metric."""
    with scope():
        loop = factory.inner_loop(update="layer_step_rates", multi_step_until=2)
        learner = factory.learner("MMAML", loop=loop, jit=None, on_nonfinite="skip")
        optimizer = keras.optimizers.SGD(1e-2, momentum=0.9)
        metric = keras.metrics.MeanAbsoluteError("error")
        learner.compile(optimizer, "mse", jit_compile=False, metrics=[metric])
    return trained(learner, batches(lambda step: functions(step, spoilt=(2,))))


def multi_maml(scope):
    """With batches whose modes are uneven, and rates that are learned for each mode."""
    with scope():
        loop = factory.inner_loop(update="meta_sgd")
        learner = factory.learner("MultiMAML", loop=loop, jit=None)
        optimizer = keras.optimizers.AdamW(1e-2, use_ema=True, ema_overwrite_frequency=2)
        learner.compile(optimizer, "mse", jit_compile=False)
    return trained(learner, batches(uneven))


def moving_averages(scope):
    """With a Keras model that changes in training."""
    normal = keras.initializers.RandomNormal(stddev=0.7, seed=3)
    with scope():
        model = keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(4, kernel_initializer=normal),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dense(1, kernel_initializer=normal),
            ]
        )
        network = mm.networks.KerasNetwork(model, statistics="moving")
        learner = factory.learner("MAML", network=network, jit=None)
        learner.compile("sgd", "mse", jit_compile=False)
    found = trained(learner, batches(functions))
    return found | {f"state {i}": v.numpy() for i, v in enumerate(learner.state)}


def proto_net(scope):
    """With a loss that is scaled."""
    tasks = images.tasks()
    with scope():
        learner = images.learner("ProtoNet")
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        learner.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return trained(learner, batches(lambda step: tasks.sample(TASKS, 0, step)))


def policies_of_modes(scope):
    """Each host acts for its own goals, and one device of it for all its devices."""
    import policies  # which starts TensorFlow

    with scope():
        learner = policies.learner("MultimodalProMP", steps=1)
        rollouts = Rollouts("mmaml_tf/PointMass-v0", 3, max_episode_steps=4)
        learner.compile(keras.optimizers.Adam(1e-2), rollouts, jit_compile=False)
    data = policies.TASKS.dataset(TASKS, seed=1).take(STEPS)
    return trained(learner, data)


def interrupted(scope, folder):
    """Training that is resumed, and ended by a signal to the last host."""
    learners = []
    for iterations, ending in ((4, False), (8, True)):
        with scope():
            learners.append(run_learner())
        host, hosts = learners[-1].replicas.host, learners[-1].replicas.hosts
        callback = keras.callbacks.Callback()
        if ending and host == hosts - 1:
            callback = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: os.kill(os.getpid(), signal.SIGTERM)
            )
        directory = folder / f"checkpoints{host}"
        logged = []
        try:
            history = run(learners[-1], directory, iterations, logged.append, [callback])
        except SystemExit as stopped:
            history, code = logged, stopped.code
        assert directory.exists() == bool(logged) == (host == 0)
    assert code == 128 + signal.SIGTERM
    steps = [row["step"] for row in history]
    assert steps == ([2, 4, 6] if host == 0 else [])
    return {f"array {i}": v.numpy() for i, v in enumerate(learners[0].trainable_variables)}


def run_learner():
    learner = factory.learner("MAML", jit=None)
    learner.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
    return learner


def run(learner, directory, iterations, on_log=None, callbacks=()):
    """Trains with checkpoints; the weights of the second of all steps are the best ones."""

    def measure(learner):
        # On one host alone, since rounding could differ.
        step = learner.optimizer.iterations.numpy()
        return {"score": -float(abs(step - 2)) if learner.replicas.host == 0 else float(step)}

    return train(
        learner,
        mm.tasks.FunctionTasks(support=3, queries=2),
        iterations=iterations,
        batch_size=TASKS,
        seed=3,
        log_every=2,
        checkpoints=Checkpoints(directory, {"of": "a test"}),
        checkpoint_every=2,
        validation=Validation(measure, every=2),
        on_log=on_log,
        callbacks=callbacks,
    )


CASES = maml, mmaml, multi_maml, moving_averages, proto_net, policies_of_modes


def main() -> None:
    """Trains all learners and writes what comes out."""
    file, devices = Path(sys.argv[1]), int(sys.argv[2])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(devices)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if "TF_CONFIG" in os.environ:
        scope = tf.distribute.MultiWorkerMirroredStrategy().scope
    elif devices > 1:
        cpu, *_ = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
        names = [f"CPU:{number}" for number in range(devices)]
        scope = tf.distribute.MirroredStrategy(names).scope
    else:
        scope = contextlib.nullcontext
    cases = {case.__name__: case for case in CASES}
    cases["interrupted"] = functools.partial(interrupted, folder=file.parent)
    found = {}
    for case, train_all in cases.items():
        found |= {f"{case}: {name}": value for name, value in train_all(scope).items()}
    np.savez(file, **found)


if __name__ == "__main__":
    main()
