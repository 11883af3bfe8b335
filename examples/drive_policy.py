"""Adapts an exported policy of the point mass to the goal (X, Y), and then drives there.

    python examples/drive_policy.py MODEL X Y

MODEL is the SavedModel that `export` of a `ProMP` or `MultimodalProMP` wrote. TensorFlow alone runs
it; this package is here for the environment. After `make reproduce` there is one at
models/laptop/reinforcement/export/mmaml-point_mass-2-0/saved_model.
"""

import argparse

import gymnasium
import numpy as np
import tensorflow as tf

import mmaml_tf.rl  # noqa: F401  registers the environment


def drive(envs, model, parameters, goal, rng, noise=1.0):
    """Returns observations, actions and rewards `[1, R, L, ...]` of one episode."""
    tasks = np.tile(goal, (envs.num_envs, 1))
    observations, _ = envs.reset(seed=int(rng.integers(2**31)), options={"task": tasks})
    steps = []
    for _ in range(envs.spec.max_episode_steps):
        standard = rng.normal(size=(1, *envs.action_space.shape))
        acted = model.act(np.float32([observations]), np.float32(noise * standard), parameters)
        following, rewards, *_ = envs.step(acted["control"][0].numpy())
        steps.append((observations, acted["action"][0], rewards))
        observations = following
    return [np.float32([np.stack(part, axis=1)]) for part in zip(*steps, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("goal", type=float, nargs=2, metavar=("X", "Y"))
    arguments = parser.parse_args()
    model, goal = tf.saved_model.load(arguments.model), arguments.goal
    envs = gymnasium.make_vec("mmaml_tf/PointMass-v0", num_envs=20)
    rng, parameters = np.random.default_rng(0), model.initial(tf.constant(1))
    for _ in range(2):
        parameters = model.adapt(*drive(envs, model, parameters, goal, rng), parameters)
    positions, _, rewards = drive(envs, model, parameters, goal, rng, noise=0.0)
    end = "{:.2f} {:.2f}".format(*positions[0, :, -1, :2].mean(axis=0))
    print(f"return {rewards.sum(axis=2).mean():.1f}, before its last step at {end}")
