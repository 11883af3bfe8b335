"""Training as one host or as one of several on one machine, timed. Prints one JSON line.

    python benchmarks/hosts.py WORK [--host I --ports PORT ...]

With ports it is host I of as many hosts as there are ports, all on 127.0.0.1. Each host has cores
of its own.
"""

import argparse
import json
import os
import time

import numpy as np


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("regression", "images"))
    parser.add_argument("--host", type=int, default=0)
    parser.add_argument("--ports", type=int, nargs="+", default=())
    parser.add_argument("--threads", type=int, default=1, help="and cores, of each host")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20, help="per repetition")
    return parser.parse_args()


def main() -> None:
    """Trains, and times all repetitions but the first."""
    a = parse_arguments()
    cores = sorted(os.sched_getaffinity(0))[a.host * a.threads :][: a.threads]
    os.sched_setaffinity(0, cores)
    if a.ports:
        addresses = [f"127.0.0.1:{port}" for port in a.ports]
        task = {"type": "worker", "index": a.host}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    hosts = max(1, len(a.ports))
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if hosts > 1 else None
    with (strategy or tf.distribute.get_strategy()).scope():
        learner, tasks, batch_size = WORK[a.work](keras.optimizers.Adam(1e-3))
    clock = [[], []]
    timer = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: clock[0].append(time.perf_counter()),
        on_epoch_end=lambda *_: clock[1].append(time.perf_counter()),
    )
    learner.fit(
        tasks.dataset(batch_size, 1, shard=(a.host, hosts)),
        epochs=1 + a.repetitions,
        steps_per_epoch=a.iterations,
        callbacks=[timer],
        verbose=0,
    )
    seconds = np.subtract(*clock[::-1])[1:]
    print(json.dumps({"ms": (1e3 * seconds / a.iterations).tolist()}))


def regression(optimizer):
    """Returns the learner and tasks of `mmaml_step.py`, and the number of tasks of a batch."""
    import mmaml_tf as mm

    tasks = mm.tasks.FunctionTasks(support=5, queries=5)
    learner = mm.MMAML(
        mm.networks.MLP(),
        encoder=mm.encoders.SequenceEncoder(),
        inner_loop=mm.InnerLoop(5, 1e-3, clip=10.0),
        modes=tasks.modes,
    )
    learner.compile(optimizer, "mse")
    return learner, tasks, 48


def images(optimizer):
    """Returns MAML with the published network on 28x28 images, and the number of tasks."""
    import keras
    from image_step import synthetic_tasks

    import mmaml_tf as mm

    learner = mm.MAML(mm.networks.ConvNet(), inner_loop=mm.InnerLoop(3, 0.05))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer, loss)
    return learner, synthetic_tasks(28), 8


WORK = {"regression": regression, "images": images}

if __name__ == "__main__":
    main()
