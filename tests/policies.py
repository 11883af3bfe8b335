"""Small learners of policies, and trajectories, for the tests."""

import bandit
import factory
import keras
import numpy as np
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.rl.rollouts import Rollouts

bandit.register()

# Sizes of an observation and of an action, as the bandits have them.
OBSERVATION, ACTION = 3, 2
RECIPES = ("ProMP", "MultimodalProMP", "MultiProMP")
MODES = ("deg225", "deg45")
TASKS = rl.GoalTasks("point_mass", MODES)
#: four goals, of both modes
GOALS = TASKS.sample(4, seed=5, step=2)


def policy(seed=0, hidden=(4, 3), **kwargs):
    """A policy whose standard deviations are no ones."""
    return rl.GaussianPolicy(ACTION, hidden, initial_std=1.5, seed=seed, **kwargs)


def learner(recipe="MultimodalProMP", steps=1, learning_rate=0.3, loop=None, **kwargs):
    """A learner without weights; `ready` and `built` give it some."""
    inner_loop = mm.InnerLoop(steps, learning_rate, **(loop or {}))
    settings = {"epochs": 2, "modes": MODES} | kwargs
    if recipe == "MultiProMP":
        return rl.MultiProMP([policy(0), policy(1)], inner_loop=inner_loop, **settings)
    network = settings.pop("network", None) or policy()
    if recipe == "ProMP":
        return rl.ProMP(network, inner_loop=inner_loop, **settings)
    modulation = settings.pop("modulation", None) or mm.modulation.FiLM(
        shift=False, kernel_initializer="glorot_uniform", bias_initializer="zeros", seed=2
    )
    encoder = rl.TrajectoryEncoder(units=3, seed=1)
    return rl.MultimodalProMP(
        network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **settings
    )


def built(*args, **kwargs):
    """A learner with weights and without an environment, compiled with plain gradient descent."""
    made = learner(*args, **kwargs)
    made.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    made.build([(None, None, None, size) for size in (OBSERVATION, ACTION)])
    return made


def ready(*args, rollouts=4, horizon=2, action_range=10.0, rate=1e-2, env_kwargs=None, **kwargs):
    """A learner with weights that acts in bandits, compiled with Adam."""
    made = learner(*args, **kwargs)
    environment = Rollouts(
        "Bandit-v0", rollouts, action_range, max_episode_steps=horizon, **(env_kwargs or {})
    )
    made.compile(keras.optimizers.Adam(rate), environment, jit_compile=False)
    made.build_for(TASKS.sample(2, 0))
    return made


def dataset(count=1, **changes):
    """The four goals as a dataset, some times, with some fields changed."""
    return factory.dataset(GOALS._replace(**changes), count)


def trajectories(tasks=3, rollouts=4, steps=5, seed=0, dtype=np.float32):
    """Random trajectories whose mask ends one rollout early."""
    rng = np.random.default_rng(seed)
    leading = tasks, rollouts, steps
    sizes = (OBSERVATION,), (ACTION,), ()
    parts = [rng.normal(size=leading + size).astype(dtype) for size in sizes]
    mask = np.ones(leading, dtype)
    mask[0, 1, steps // 2 :] = 0
    return rl.Trajectories(*(tf.constant(part) for part in (*parts, mask)))
