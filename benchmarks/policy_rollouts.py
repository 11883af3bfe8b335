"""Environment steps per second of a whole collection, policy included.

Prints one JSON line.
"""

import argparse
import json
import os
import resource
import time


def main() -> None:
    """Times collections with the initial policy, each with other goals and seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="point_mass")
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--rollouts", type=int, default=20)
    parser.add_argument("--processes", action="store_true", help="gymnasium's asynchronous form")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    import tensorflow as tf

    from mmaml_tf import rl
    from mmaml_tf.rl.rollouts import Rollouts

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    # Processes that TensorFlow's threads are forked into may hang.
    form = {"vectorization_mode": "async", "vector_kwargs": {"context": "spawn"}}
    tasks = rl.GoalTasks(a.environment, 1)
    rollouts = Rollouts(tasks.env_id, a.rollouts, **(form if a.processes else {}))
    policy = rl.GaussianPolicy(rollouts.action_size)
    policy.build((None, None, rollouts.observation_size))
    weights = [
        tf.tile(v.value[None], [a.tasks] + [1] * len(v.shape)) for v in policy.trainable_variables
    ]
    rates = []
    for step in range(1 + a.repetitions):
        goals = tasks.sample(a.tasks, 0, step).goal
        if a.processes:  # all its environments get the same options
            goals = tf.tile(goals[:1], [a.tasks, 1])
        start = time.perf_counter()
        rollouts.collect(policy, weights, None, goals, (0, step))
        seconds = time.perf_counter() - start
        rates.append(a.tasks * a.rollouts * rollouts.horizon / seconds)
    rollouts.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"steps_per_s": rates[1:], "peak_mib": peak}))


if __name__ == "__main__":
    main()
