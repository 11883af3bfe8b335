"""Latency of adapting to one new task and predicting, from the exported model alone."""

import argparse
import json
import os
import tempfile
import time

import numpy as np


def main() -> None:
    """Exports a learner of the published size, loads it with TensorFlow alone, times calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import tensorflow as tf

    import mmaml_tf as mm

    tasks = mm.tasks.FunctionTasks()
    learner = mm.MMAML(mm.networks.MLP(), mm.encoders.SequenceEncoder(), "film", mm.InnerLoop(5))
    learner.compile("adam", "mse")
    learner.build_for(tasks.sample(2, 0))
    with tempfile.TemporaryDirectory() as folder:
        learner.export(f"{folder}/model")
        model = tf.saved_model.load(f"{folder}/model")
    rng = np.random.default_rng(0)
    times = []
    for _ in range(520):
        arrays = [tf.constant(rng.normal(size=(1, 5, 1)).astype(np.float32)) for _ in range(3)]
        start = time.perf_counter()
        model.adapt_and_predict(*arrays).numpy()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[20:]
    print(json.dumps({"median_ms": np.median(times), "p99_ms": np.percentile(times, 99)}))


if __name__ == "__main__":
    main()
