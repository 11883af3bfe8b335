"""Rollouts: trajectories of T tasks, collected from vector environments."""

import functools
import threading
from collections.abc import Sequence

import gymnasium
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import positive_number, whole_number
from mmaml_tf.distribution import check_outside
from mmaml_tf.names import checked
from mmaml_tf.rl.driver import Driver
from mmaml_tf.rl.fixed_horizon import (
    FixedHorizonEnvs,
    NonFiniteActionsError,
    registered_horizon,
)
from mmaml_tf.rl.goals import check_goals
from mmaml_tf.rl.trajectories import Trajectories
from mmaml_tf.seeds import derive_seed


class Rollouts:
    """Collects R rollouts of each of T tasks, all of L steps.

    The environments are made when they are first needed, and made again when T changes. Threads
    take turns.

    Args:
        env_id: id of a registered environment that never terminates and whose `reset` takes
            goals as `options={"task": ...}` and returns them, see `fixed_horizon.FixedHorizonEnvs`.
        rollouts: number R of rollouts of a task.
        action_range: the policy's actions of ± this number are the bounds of the environment's
            (10 in the published code).
        **env_kwargs: passed on to `gymnasium.make_vec`.

    Raises:
        ValueError: for an unknown environment, one without a fixed horizon of at least one step,
            a number of rollouts that is no whole positive one, and an action range that is not
            positive and finite.
    """

    @checked(environment="env_id")
    def __init__(self, env_id: str, rollouts: int = 20, action_range: float = 10.0, **env_kwargs):
        self.env_id = env_id
        self.rollouts = whole_number("rollouts", rollouts)
        self.action_range = positive_number("action_range", action_range)
        if "num_envs" in env_kwargs:
            raise ValueError(
                "num_envs: the number of environments is that of the goals times rollouts; leave "
                "it out."
            )
        self.env_kwargs = env_kwargs
        self.horizon = registered_horizon(env_id, **env_kwargs)
        self._envs = self._driver = None
        # One collection at a time: the environments hold its state.
        self._lock = threading.RLock()

    def __reduce__(self):
        """Copies and pickles the settings alone; a copy makes environments of its own."""
        settings = self.env_id, self.rollouts, self.action_range
        return functools.partial(type(self), *settings, **self.env_kwargs), ()

    @property
    def observation_size(self) -> int:
        """Size O of an observation."""
        return self._envs_for().observation_size

    @property
    def action_size(self) -> int:
        """Size A of an action."""
        return self._envs_for().action_size

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The environment's least and greatest action, `[A]` each."""
        return self._envs_for().action_bounds

    @property
    def unstable(self) -> int:
        """How many environments became unstable in the last collection."""
        return 0 if self._envs is None else int(self._envs.unstable.sum())

    def collect(
        self,
        policy: keras.Model,
        weights: Sequence,
        modulation: Sequence | None,
        goals: ArrayLike,
        seed: Sequence[int],
        share: tuple[int, int] = (0, 1),
    ) -> Trajectories:
        """Runs every environment from a new start to its horizon.

        Start states and action noise are functions of `seed`; the trajectories of a task depend
        on no other task's weights. To be called eagerly.

        Args:
            policy: a `policies.GaussianPolicy`, built.
            weights: the policy's weights, each shared or with a leading task axis.
            modulation: for each hidden layer `(scale [T, width], shift or None)` or None; None
                for no modulation.
            goals: `[T, G]`, the goal of each task.
            seed: whole numbers.
            share: (i, n) where the goals are those of the tasks i, i + n, i + 2n, ... of n·T tasks;
                what is sampled for them is what would be sampled among all.

        Returns:
            Trajectories `[T, R, L, ...]`, float32.

        Raises:
            ValueError: for goals of another shape, environments that do not take them, a policy or
                weights that do not fit, seeds that are not whole, actions, observations or rewards
                that are not finite, and environments of which one ends before its horizon or gives
                arrays of a wrong shape.
        """
        check_outside()
        if not tf.executing_eagerly():
            raise ValueError(
                "collect() steps environments, which cannot be part of another graph; call it "
                "outside tf.function."
            )
        goals = check_goals(goals, "goals")
        _check_policy(policy, weights)
        start, *noise = _seeds(seed)
        weights, modulation = tf.nest.map_structure(
            lambda x: None if x is None else tf.convert_to_tensor(x), (list(weights), modulation)
        )
        with self._lock:
            self._envs_for(len(goals))
            if self._driver is None or self._driver.share != share:
                self._driver = Driver(self._envs, len(goals), share)
            of_envs = np.repeat(goals, self.rollouts, axis=0)
            try:
                return self._driver.run(
                    policy, weights, modulation, of_envs, start, tf.constant(noise)
                )
            except NonFiniteActionsError:
                raise
            except Exception:
                # Environments that failed may be of no more use.
                self.close()
                raise

    def close(self) -> None:
        """Closes the environments; the next collection makes new ones."""
        with self._lock:
            envs, self._envs, self._driver = self._envs, None, None
            if envs is not None:
                envs.close()

    def _envs_for(self, tasks=None):
        """Returns the environments; makes them if there are none, or none for this many tasks."""
        size = (tasks or 1) * self.rollouts
        with self._lock:
            if self._envs is None or (tasks and self._envs.size != size):
                self.close()
                made = self._make(size)
                try:
                    self._envs = FixedHorizonEnvs(made, self.horizon, self.action_range)
                except ValueError:
                    made.close()
                    raise
            return self._envs

    def _make(self, size):
        try:
            return gymnasium.make_vec(self.env_id, num_envs=size, **self.env_kwargs)
        except Exception as error:
            raise ValueError(
                f"{size} environments {self.env_id} cannot be made with {self.env_kwargs}: {error}"
            ) from error


def _check_policy(policy, weights):
    """Raises ValueError unless there is one weight for each of a policy's."""
    own = getattr(policy, "trainable_variables", None)
    if own is None or not hasattr(policy, "distribution"):
        raise ValueError(
            f"policy is a {type(policy).__name__}; expected a mmaml_tf.rl.GaussianPolicy."
        )
    if not isinstance(weights, Sequence) or len(weights) != len(own) or not policy.built:
        count = len(weights) if isinstance(weights, Sequence) else type(weights).__name__
        raise ValueError(
            f"weights: found {count}, expected one for each of the policy's {len(own)} trainable "
            "variables; a policy that is not built has none."
        )


def _seeds(seed):
    """Returns the seeds of starts and of noise: three whole numbers."""
    if isinstance(seed, str) or not np.iterable(seed) or not len(seed):
        raise ValueError(f"seed={seed!r}: expected some whole numbers, such as (seed, step).")
    return [derive_seed(*seed, part) for part in ("start", "noise", "more noise")]
