"""One iteration of meta-reinforcement learning at the published size, and where its time goes.

Prints one JSON line.
"""

import argparse
import json
import os
import resource
import time

# What an iteration consists of, by the learner's (or its rollouts') method.
PARTS = {
    "sampling": "collect",
    "advantages": "_prepare",
    "encoding": "_modulate",
    "adapting": "_inner_step",
    "optimising": "_optimise",
}


def main() -> None:
    """Times iterations of the multimodal learner and of ProMP."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="point_mass")
    parser.add_argument("--method", default="MultimodalProMP")
    parser.add_argument("--inner-steps", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    import keras
    import tensorflow as tf

    import mmaml_tf as mm
    from mmaml_tf import rl
    from mmaml_tf.rl.rollouts import Rollouts

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    tasks = rl.GoalTasks(a.environment, 2)
    rollouts = Rollouts(tasks.env_id)
    parts = {}
    if a.method == "MultimodalProMP":
        modulation = mm.modulation.FiLM(
            shift=False, kernel_initializer="glorot_uniform", bias_initializer="zeros"
        )
        parts = {"encoder": rl.TrajectoryEncoder(), "modulation": modulation}
    learner = getattr(rl, a.method)(
        network=rl.GaussianPolicy(rollouts.action_size),
        inner_loop=mm.InnerLoop(a.inner_steps, 0.01),
        **parts,
    )
    learner.compile(keras.optimizers.Adam(5e-5, epsilon=1e-8), rollouts)
    seconds = {
        name: timed(rollouts if name == "sampling" else learner, method)
        for name, method in PARTS.items()
    }
    learner.build_for(tasks.sample(40, 0))
    learner.optimizer.build(learner.trainable_variables)
    whole = []
    for step in range(1 + a.repetitions):
        start = time.perf_counter()
        learner.train_step(tasks.sample(40, 0, step))
        whole.append(time.perf_counter() - start)
        if step == 0:  # traced and compiled
            for spent in seconds.values():
                spent.clear()
    shares = {name: sum(spent) / sum(whole[1:]) for name, spent in seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"s": whole[1:], "first_s": whole[0], "shares": shares, "peak_mib": peak}))


def timed(owner, method) -> list[float]:
    """Makes a method note the seconds of each call in the list that is returned."""
    import tensorflow as tf

    call, spent = getattr(owner, method), []

    def timing(*args, **kwargs):
        start = time.perf_counter()
        result = call(*args, **kwargs)
        for tensor in tf.nest.flatten(result):
            if tf.is_tensor(tensor):
                tensor.numpy()  # waits for it
        spent.append(time.perf_counter() - start)
        return result

    object.__setattr__(owner, method, timing)
    return spent


if __name__ == "__main__":
    main()
