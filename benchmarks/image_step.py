"""One MAML meta-iteration of the convolutional network, timed through `learner.fit`.

Takes the same command line as `peers/pytorch_images.py` and does the same work. Prints one JSON
line, or with `--program` writes the step to a file instead.
"""

import argparse
import json
import os
import resource
import time
from unittest import mock

import numpy as np

# Images of the distribution that batches are drawn from: as many as a real dataset has classes.
_CLASSES, _PER_CLASS = 64, 100


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="npz file with the initial weights")
    parser.add_argument("--batch", help="npz file with the batch to check on")
    parser.add_argument("--size", type=int, default=28, help="height and width of the images")
    parser.add_argument("--filters", type=int, nargs="+", default=[32] * 4)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=5, help="0 skips the timing")
    parser.add_argument("--iterations", type=int, default=20, help="per repetition")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--form", default="auto", help="see mmaml_tf.layers.conv2d")
    parser.add_argument("--no-xla", action="store_true")
    parser.add_argument("--dtype", default="float32", help="Keras's dtype policy of the network")
    parser.add_argument("--gradient", help="npy file to write the batch's meta-gradient to")
    parser.add_argument(
        "--program", help="npz file for the step as a GPU gets it, which peers/xla_program.py runs"
    )
    a = parser.parse_args()
    if a.program and a.no_xla:
        parser.error("--program writes what XLA compiles; leave --no-xla out.")
    return a


def main() -> None:
    """Checks the work on the given batch, then times fresh batches."""
    a = parse_arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    # As `make reproduce` does; grouped convolutions have no gradient without it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import keras
    import tensorflow as tf

    import mmaml_tf as mm

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    network = mm.networks.ConvNet(a.filters, 5, form=a.form, dtype=a.dtype)
    learner = mm.MAML(network, inner_loop=mm.InnerLoop(5, 0.05, clip=20.0), outer_clip=None)
    learner.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=not a.no_xla,
    )
    tasks = synthetic_tasks(a.size)
    learner.build_for(tasks.sample(a.tasks, 0))
    result = {"framework": "mmaml_tf", "version": tf.__version__}
    if a.weights:
        found, gradient = check(learner, a.weights, a.batch)
        result |= found
        if a.gradient:
            np.save(a.gradient, gradient)
    if a.program:
        np.savez_compressed(a.program, **program(learner, tasks.sample(a.tasks, 0)))
        return
    start = time.perf_counter()
    learner.fit(tasks.dataset(a.tasks, 0), steps_per_epoch=1, verbose=0)
    result["first_step_s"] = time.perf_counter() - start
    result["ms"] = []
    if a.repetitions:
        # One fit, as training is: its set-up is no part of a step. The first epoch warms up.
        clock = [[], []]
        timer = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: clock[0].append(time.perf_counter()),
            on_epoch_end=lambda *_: clock[1].append(time.perf_counter()),
        )
        learner.fit(
            tasks.dataset(a.tasks, 1),
            epochs=1 + a.repetitions,
            steps_per_epoch=a.iterations,
            callbacks=[timer],
            verbose=0,
        )
        seconds = np.subtract(*clock[::-1])[1:]
        result["ms"] = (1e3 * seconds / a.iterations).tolist()
    start = time.perf_counter()
    for step in range(20):
        tasks.sample(a.tasks, 2, step)
    result["sampling_ms"] = 1e3 * (time.perf_counter() - start) / 20
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def synthetic_tasks(size, queries=15):
    """Returns 5-way 1-shot tasks of random images."""
    import mmaml_tf as mm

    rng, count = np.random.default_rng(0), _CLASSES * _PER_CLASS
    names = [f"{i:02d}" for i in range(_CLASSES)]
    offsets = {n: (i * _PER_CLASS, (i + 1) * _PER_CLASS) for i, n in enumerate(names)}
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    mode = mm.tasks.ImageMode("random", images, offsets, mm.tasks.ClassSplit.of(names))
    return mm.tasks.ImageTasks([mode], ways=5, support=1, queries=queries)


def check(learner, weights, batch) -> tuple[dict, np.ndarray]:
    """Sets the common weights; returns a batch's loss and gradient norm, and the gradient."""
    import tensorflow as tf

    import mmaml_tf as mm

    with np.load(weights) as file:
        learner.network.set_weights([file[name] for name in sorted(file.files)])
    with np.load(batch) as file:
        arrays = {name: tf.constant(file[name]) for name in file.files}
    episodes = mm.Episodes(**arrays)
    arrays = [*episodes[:4], None, learner.task_weights(len(episodes.support_x))]
    groups = episodes.support_x.shape[0] if learner.xla else 1
    (losses, _), gradients = learner._shard_gradients(arrays, learner._values(), groups)
    found = {
        "loss": float(tf.reduce_mean(losses)),
        "gradient_norm": float(tf.linalg.global_norm(gradients)),
    }
    return found, np.concatenate([np.ravel(g) for g in gradients])


def program(learner, episodes) -> dict:
    """Returns the gradient of a batch as a program for XLA, its arguments and its results.

    It is for machines whose GPU TensorFlow does not see, or which lack TensorFlow.
    """
    import tensorflow as tf

    arrays = [tf.constant(array) for array in episodes[:4]]
    arrays += [None, learner.task_weights(len(arrays[0]))]
    shard = arrays, learner._values(), 1
    with mock.patch("mmaml_tf.layers.on_gpu", return_value=True):
        graph = learner._shard_gradients.get_concrete_function(*shard)
        text = learner._shard_gradients.experimental_get_compiler_ir(*shard)
        hlo = text(stage="hlo_serialized")
        results = tf.nest.flatten(learner._shard_gradients(*shard))
    arguments = [t for t in tf.nest.flatten(shard[:2]) if t is not None] + graph.captured_inputs
    named = {f"argument_{i:03d}": np.asarray(array) for i, array in enumerate(arguments)}
    named |= {f"result_{i:03d}": np.asarray(array) for i, array in enumerate(results)}
    return {"hlo": np.frombuffer(hlo, np.uint8), **named}


if __name__ == "__main__":
    main()
