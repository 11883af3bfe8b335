"""Latency of adapting to one new task and predicting, from the exported model alone."""

import argparse
import json
import os
import tempfile
import time

import numpy as np


def main() -> None:
    """Exports a learner of the published form, loads it with TensorFlow alone, times calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, help="of images; without it the task is regression")
    parser.add_argument("--filters", type=int, nargs="+", default=[32] * 4)
    parser.add_argument("--calls", type=int, help="to time, after ten that are not")
    a = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    import tensorflow as tf

    learner, tasks, calls = classifier(a.size, a.filters) if a.size else regression()
    learner.build_for(tasks.sample(2, 0))
    with tempfile.TemporaryDirectory() as folder:
        learner.export(f"{folder}/model")
        model = tf.saved_model.load(f"{folder}/model")
    times = []
    for step in range((a.calls or calls) + 10):
        episodes = tasks.sample(2, 0, step)
        arrays = [tf.constant(array[:1]) for array in episodes[:3]]
        start = time.perf_counter()
        model.adapt_and_predict(*arrays).numpy()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[10:]
    print(json.dumps({"median_ms": np.median(times), "p99_ms": np.percentile(times, 99)}))


def regression():
    """Returns the learner and tasks of 2-mode regression, and how many calls to time."""
    import mmaml_tf as mm

    learner = mm.MMAML(
        mm.networks.MLP(),
        encoder=mm.encoders.SequenceEncoder(),
        modulation="film",
        inner_loop=mm.InnerLoop(5),
    )
    learner.compile("adam", "mse")
    return learner, mm.tasks.FunctionTasks(), 500


def classifier(size, filters):
    """Returns the same of 5-way 1-shot classification with five queries."""
    import keras
    from image_step import synthetic_tasks  # the script beside this one

    import mmaml_tf as mm

    learner = mm.MMAML(
        mm.networks.ConvNet(filters),
        encoder=mm.encoders.ImageEncoder(filters),
        modulation="film",
        inner_loop=mm.InnerLoop(5, 0.05, clip=20.0),
    )
    learner.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return learner, synthetic_tasks(size, queries=1), 100


if __name__ == "__main__":
    main()
