"""The reinforcement-learning environments, and what is published about them."""

import gymnasium
import numpy as np
import pytest

import mmaml_tf.rl  # noqa: F401  (registers the environments)

# Observation, action and goal size, action bound, horizon.
SIZES = {
    "PointMass": (4, 2, 2, 0.1, 100),
    "Reacher": (7, 3, 3, 1.0, 50),
    "Ant": (29, 8, 3, 1.0, 250),
}
STATE_SIZES = {"PointMass": 4, "Reacher": 6, "Ant": 29}
each = pytest.mark.parametrize("name", SIZES)


def single(name, **kwargs):
    return gymnasium.make(f"mmaml_tf/{name}-v0", **kwargs)


def vector(name, num_envs, **kwargs):
    return gymnasium.make_vec(f"mmaml_tf/{name}-v0", num_envs=num_envs, **kwargs)


def random_actions(name, shape, seed=0):
    _, size, _, bound, _ = SIZES[name]
    return np.random.default_rng(seed).uniform(-bound, bound, (*shape, size))
