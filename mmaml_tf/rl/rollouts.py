"""Rollouts: trajectories of T tasks, collected from vector environments by TF-Agents.

A TF-Agents driver runs inside one graph. Each of its L steps holds the policy, compiled by XLA,
the step of all T·R environments and the recording of their transitions, both calls of NumPy
code; nothing loops over tasks or rollouts. This is the only file that imports TF-Agents.
"""

import math
import numbers
from collections.abc import Sequence

import gymnasium
import numpy as np
import tensorflow as tf
from tf_agents.drivers.dynamic_step_driver import DynamicStepDriver
from tf_agents.environments.py_environment import PyEnvironment
from tf_agents.environments.tf_py_environment import TFPyEnvironment
from tf_agents.policies.tf_policy import TFPolicy
from tf_agents.specs import ArraySpec, TensorSpec
from tf_agents.trajectories import PolicyStep, StepType, TimeStep, Trajectory

from mmaml_tf.rl.fixed_horizon import FixedHorizonEnvs, registered_horizon
from mmaml_tf.rl.trajectories import Trajectories
from mmaml_tf.seeds import derive_seed


class Rollouts:
    """Collects R rollouts of each of T tasks, all of L steps.

    The environments are made when they are first needed, and made again when T changes.

    Args:
        environment: id of a registered environment that never terminates and whose `reset` takes
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

    def __init__(
        self, environment: str, rollouts: int = 20, action_range: float = 10.0, **env_kwargs
    ):
        whole = isinstance(rollouts, numbers.Integral) and rollouts >= 1
        if not (whole and 0 < action_range < math.inf):
            raise ValueError(
                f"rollouts={rollouts}, action_range={action_range}: both must be positive, the "
                "first a whole number, the second finite."
            )
        self.environment = environment
        self.rollouts = rollouts
        self.action_range = action_range
        self.env_kwargs = env_kwargs
        self.horizon = registered_horizon(environment, **env_kwargs)
        self._envs = self._policy = self._graph = None

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
        policy,
        weights: Sequence,
        modulation: Sequence | None,
        goals,
        seed: Sequence[int],
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

        Returns:
            Trajectories `[T, R, L, ...]`, float32.

        Raises:
            ValueError: for goals of another shape, environments that do not take them, a policy or
                weights that do not fit, actions,
                observations or rewards that are not finite, and environments of which one ends
                before its horizon or gives arrays of a wrong shape.
        """
        if not tf.executing_eagerly():
            raise ValueError(
                "collect() steps environments, which cannot be part of another graph; call it "
                "outside tf.function."
            )
        goals = _check_goals(goals)
        self._envs_for(len(goals))
        if self._policy is not policy:
            self._policy, self._graph = policy, self._collection(policy)
        start, *noise = (derive_seed(*seed, part) for part in ("start", "noise", "more noise"))
        self._adapter.set_tasks(np.repeat(goals, self.rollouts, axis=0), start)
        time_step = self._adapter.reset()
        self._recorder.clear()
        weights, modulation = tf.nest.map_structure(
            lambda x: None if x is None else tf.convert_to_tensor(x), (list(weights), modulation)
        )
        try:
            self._graph(time_step, weights, modulation, tf.constant(noise))
        except tf.errors.OpError as error:
            # What NumPy code raises inside a graph reaches us as an error of TensorFlow.
            raise self._adapter.failure or error from None
        return self._recorder.trajectories(len(goals))

    def close(self) -> None:
        """Closes the environments; the next collection makes new ones."""
        if self._envs is not None:
            self._envs.close()
        self._envs = self._policy = self._graph = None

    def _envs_for(self, tasks=None):
        """Returns the environments; makes them if there are none, or none for this many tasks."""
        size = (tasks or 1) * self.rollouts
        if self._envs is None or (tasks and self._envs.size != size):
            self.close()
            made = gymnasium.make_vec(self.environment, num_envs=size, **self.env_kwargs)
            self._envs = FixedHorizonEnvs(made, self.horizon, self.action_range)
            self._adapter = BatchedEnvironment(self._envs)
            self._recorder = _Recorder(self._envs)
        return self._envs

    def _collection(self, policy):
        """Returns the graph that runs the driver; it is traced once for each form of weights."""
        envs, recorder = self._envs, self._recorder
        environment = TFPyEnvironment(self._adapter)
        shape = [envs.horizon, envs.size // self.rollouts, self.rollouts, envs.action_size]

        @tf.function(autograph=False)
        def collect(time_step, weights, modulation, seed):
            # One draw for all steps costs less than one at each.
            noise = tf.random.stateless_normal(shape, seed, alg="philox")
            actor = TaskPolicy(policy, weights, modulation, noise, environment)
            steps = envs.horizon * envs.size
            driver = DynamicStepDriver(environment, actor, [recorder], num_steps=steps)
            driver.run(time_step, policy_state=tf.constant(0))

        return collect


class BatchedEnvironment(PyEnvironment):
    """Vector environments of fixed horizon as one batched TF-Agents environment.

    `set_tasks` comes before each `reset`; exactly L steps follow, the last of them a truncation.
    """

    def __init__(self, envs: FixedHorizonEnvs):
        super().__init__(handle_auto_reset=False)
        self._envs = envs
        kinds = StepType.FIRST, StepType.MID, StepType.LAST
        self._first, self._mid, self._last = (np.full(envs.size, kind) for kind in kinds)
        self._zeros, self._ones = np.zeros(envs.size, np.float32), np.ones(envs.size, np.float32)
        #: the error that ended the last episode early, or None
        self.failure = None

    @property
    def batched(self):
        """Always true."""
        return True

    @property
    def batch_size(self):
        """Number N of environments."""
        return self._envs.size

    def observation_spec(self):
        """Returns the specification of one observation `[O]`."""
        return ArraySpec((self._envs.observation_size,), np.float32)

    def action_spec(self):
        """Returns the specification of one action `[A]`, without bounds."""
        return ArraySpec((self._envs.action_size,), np.float32)

    def set_tasks(self, goals: np.ndarray, seed: int) -> None:
        """Sets the goals `[N, G]` and the seed of the next reset."""
        self._goals, self._seed = goals, seed

    def _reset(self):
        self.failure = None
        observations = self._envs.reset(self._goals, self._seed)
        return TimeStep(self._first, self._zeros, self._ones, observations)

    def _step(self, action):
        try:
            observations, rewards, last = self._envs.step(action)
        except Exception as error:
            self.failure = error
            raise
        return TimeStep(self._last if last else self._mid, rewards, self._ones, observations)


class TaskPolicy(TFPolicy):
    """A policy with the weights and modulation of T tasks, and the noise of all its actions.

    Noise is `[L, T, R, A]`, standard normal. The state is the number of steps taken, a scalar.
    """

    def __init__(self, policy, weights, modulation, noise, environment):
        super().__init__(
            environment.time_step_spec(),
            environment.action_spec(),
            policy_state_spec=TensorSpec((), tf.int32),
            # Clipped actions would have other probabilities than the policy's own.
            clip=False,
            automatic_state_reset=False,
        )
        self._given = weights, modulation
        self._noise = noise

        @tf.function(autograph=False, jit_compile=policy.supports_xla)
        def act(weights, modulation, observations, noise):
            distribution = _distribution(policy, weights, observations, modulation, noise.shape)
            return distribution.mean() + distribution.stddev() * noise

        self._act = act

    def _action(self, time_step, policy_state, seed=None):
        tasks, rollouts, actions = self._noise.shape[1:]
        observations = tf.reshape(time_step.observation, [tasks, rollouts, -1])
        action = self._act(*self._given, observations, self._noise[policy_state])
        return PolicyStep(tf.reshape(action, [-1, actions]), policy_state + 1)


def _check_tasks(policy, weights, modulation, tasks):
    """Raises ValueError where one task's weights or modulation would be stretched to all."""
    own = zip(weights, policy.trainable_variables, strict=False)
    given = [w for w, v in own if w.shape.rank > len(v.shape)]
    given += [part for part in tf.nest.flatten(modulation) if part is not None]
    if others := {part.shape[0] for part in given} - {tasks}:
        raise ValueError(f"they are of {sorted(others)} tasks, and not of {tasks}.")


def _distribution(policy, weights, observations, modulation, expected):
    """Returns the policy's distribution of actions; refuses one that does not fit."""
    given = f"observations {tuple(observations.shape)} (tasks, rollouts, observation size)"
    try:
        _check_tasks(policy, weights, modulation, observations.shape[0])
        distribution = policy.distribution(weights, observations, modulation)
    except ValueError as error:
        raise ValueError(
            f"the policy cannot be applied to {given} with these weights and this modulation, "
            f"which are either shared or one for each task: {error}"
        ) from error
    shape = distribution.batch_shape + distribution.event_shape
    if shape != expected:
        raise ValueError(
            f"the policy gives actions of shape {tuple(shape)} for {given}; expected "
            f"{tuple(expected)} (tasks, rollouts, action size)."
        )
    return distribution


class _Recorder:
    """An observer of a driver that writes the transitions of all environments into arrays."""

    def __init__(self, envs):
        self._envs = envs

    def clear(self):
        """Makes room for new trajectories; those already given out stay as they are."""
        envs = self._envs
        sizes = (envs.observation_size,), (envs.action_size,), (), ()
        leading = (envs.size, envs.horizon)
        self._parts = Trajectories(*(np.empty(leading + size, np.float32) for size in sizes))
        self._step = 0

    def __call__(self, transition: Trajectory):
        """Adds to the graph the recording of a transition of all environments."""
        parts = transition.observation, transition.action, transition.reward
        tf.numpy_function(self._write, parts, [])

    def _write(self, *transition):
        for array, part in zip(self._parts, (*transition, ~self._envs.unstable), strict=True):
            array[:, self._step] = part
        self._step += 1

    def trajectories(self, tasks):
        """Returns what was recorded, `[T, R, L, ...]`; refuses values that are not finite."""
        for name in ("observations", "rewards"):
            finite = np.isfinite(getattr(self._parts, name))
            if not finite.all():
                number, step = np.argwhere(~finite)[0][:2]
                raise ValueError(
                    f"{name} are not finite, first those of environment {number} of {len(finite)} "
                    f"at step {step}; an environment that becomes unstable must say so in "
                    'infos["unstable"] and give finite values from then on.'
                )
        return Trajectories(
            *(tf.constant(part.reshape(tasks, -1, *part.shape[1:])) for part in self._parts)
        )


def _check_goals(goals):
    goals = np.asarray(goals)
    if goals.ndim != 2 or 0 in goals.shape or not np.isfinite(goals).all():
        raise ValueError(
            f"goals have shape {goals.shape}; expected [T, G] (tasks, goal size) with at least "
            "one of each, and finite numbers."
        )
    return goals
