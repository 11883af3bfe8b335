"""One MMAML meta-iteration in mmaml_tf, timed through `learner.fit`. Prints one JSON line.

Takes the same command line as the peers in `benchmarks/peers` and does the same work.
"""

import argparse
import json
import os
import resource
import time

import numpy as np


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="npz file with the initial weights")
    parser.add_argument("--batch", help="npz file with the batch to check on")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--support", type=int, default=5)
    parser.add_argument("--query", type=int, default=5)
    parser.add_argument("--inner-steps", type=int, default=5)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5, help="0 skips the timing")
    parser.add_argument("--iterations", type=int, default=100, help="per repetition")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-xla", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Checks the work on the given batch, then times fresh batches."""
    a = parse_arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    import keras
    import tensorflow as tf

    import mmaml_tf as mm

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    tasks = mm.tasks.FunctionTasks(support=a.support, queries=a.query)
    learner = mm.MMAML(
        mm.networks.MLP((a.width,) * 3),
        encoder=mm.encoders.SequenceEncoder(),
        modulation="film",
        inner_loop=mm.InnerLoop(a.inner_steps, 1e-3, clip=10.0),
        modes=tasks.modes,
    )
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-8)
    learner.compile(optimizer, "mse", jit_compile=not a.no_xla)
    learner.build_for(tasks.sample(a.tasks, 0))
    result = {"framework": "mmaml_tf", "version": tf.__version__}
    if a.weights:
        set_weights(learner, a.weights)
        result |= check(learner, a.batch)
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
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def set_weights(learner, path) -> None:
    """Sets the weights that every implementation starts from."""
    with np.load(path) as w:
        learner.network.set_weights([w[f"network_{i}"] for i in range(8)])
        for layer, lstm in enumerate(learner.encoder.lstms):
            for direction, part in (
                ("forward", lstm.forward_layer),
                ("backward", lstm.backward_layer),
            ):
                names = ("kernel", "recurrent", "bias")
                part.set_weights([w[f"lstm_{layer}_{direction}_{name}"] for name in names])
        for i in range(3):
            learner.modulation.heads[str(i)].set_weights(
                [w[f"head_{i}_kernel"], w[f"head_{i}_bias"]]
            )


def check(learner, path) -> dict:
    """Returns the loss and the norms of the unclipped gradients on the given batch."""
    import tensorflow as tf

    with np.load(path) as b:
        x, y, q, z = (tf.constant(b[k]) for k in ("support_x", "support_y", "query_x", "query_y"))
    variables = learner.trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(learner.task_losses(z, learner.call((x, y, q))))
    gradients = tape.gradient(loss, [v.value for v in variables])
    of = {id(v): g for v, g in zip(variables, gradients, strict=True)}
    norms = [
        float(tf.linalg.global_norm([of[id(v)] for v in group]))
        for group in learner.gradient_groups()
    ]
    return {
        "loss": float(loss),
        "network_gradient_norm": norms[0],
        "encoder_gradient_norm": norms[1],
    }


if __name__ == "__main__":
    main()
