"""What drives environments: a TF-Agents driver inside one graph.

Each of its L steps holds the policy, compiled by XLA, the step of all T·R environments and the
recording of their transitions, both calls of NumPy code; nothing loops over tasks or rollouts.
This is the only file that imports TF-Agents.
"""

import numpy as np
import tensorflow as tf

from mmaml_tf.extras import TF_AGENTS, absent

if _absent := absent("rl", "gym", "tf_agents", command=TF_AGENTS):
    raise ImportError(_absent)

from tf_agents.drivers.dynamic_step_driver import DynamicStepDriver
from tf_agents.environments.py_environment import PyEnvironment
from tf_agents.environments.tf_py_environment import TFPyEnvironment
from tf_agents.policies.tf_policy import TFPolicy
from tf_agents.specs import ArraySpec, TensorSpec
from tf_agents.trajectories import PolicyStep, StepType, TimeStep, Trajectory

from mmaml_tf.rl.fixed_horizon import FixedHorizonEnvs
from mmaml_tf.rl.trajectories import Trajectories


class Driver:
    """Runs policies in environments from a new start to the horizon, and records what they did.

    Args:
        envs: T·R environments; those of a task follow one another.
        tasks: number of tasks T.
        share: (i, n), where these are the tasks i, i + n, ... of n·T tasks.
    """

    def __init__(self, envs: FixedHorizonEnvs, tasks: int, share: tuple[int, int] = (0, 1)):
        self._envs = envs
        self._shape = envs.horizon, tasks, envs.size // tasks, envs.action_size
        #: see `share` above
        self.share = share
        self._adapter = BatchedEnvironment(envs)
        self._recorder = _Recorder(envs)
        self._policy = self._graph = None

    def run(self, policy, weights, modulation, goals, start: int, noise) -> Trajectories:
        """Returns trajectories `[T, R, L, ...]`, float32; see `rollouts.Rollouts.collect`.

        Args:
            policy: see there.
            weights: see there.
            modulation: see there.
            goals: `[T·R, G]`, the goal of each environment.
            start: seed of the environments' starts.
            noise: `[2]` stateless seed of the noise of actions.
        """
        # Layers that were frozen or released since make another graph.
        given = policy, tuple(id(v) for v in policy.trainable_variables)
        if self._policy != given:
            self._policy, self._graph = given, self._collection(policy)
        self._adapter.set_tasks(goals, start, self._among())
        time_step = self._adapter.reset()
        self._recorder.clear()
        try:
            self._graph(time_step, weights, modulation, noise)
        except tf.errors.OpError as error:
            # What NumPy code raises inside a graph reaches us as an error of TensorFlow.
            raise self._adapter.failure or error from None
        return self._recorder.trajectories(self._shape[1])

    def _among(self):
        """Returns (rows, M) of these environments among those of all tasks, or None for all."""
        part, parts = self.share
        if parts == 1:
            return None
        tasks, rollouts = self._shape[1:3]
        first = rollouts * (part + parts * np.arange(tasks))
        rows = first[:, None] + np.arange(rollouts)
        return rows.reshape(-1), parts * tasks * rollouts

    def _collection(self, policy):
        """Returns the graph that runs the driver; it is traced once for each form of weights."""
        recorder, (horizon, tasks, *rest) = self._recorder, self._shape
        part, parts = self.share
        environment = TFPyEnvironment(self._adapter)

        @tf.function(autograph=False)
        def collect(time_step, weights, modulation, seed):
            # One draw for all steps costs less than one at each.
            shape = horizon, parts * tasks, *rest
            noise = tf.random.stateless_normal(shape, seed, alg="philox")[:, part::parts]
            actor = TaskPolicy(policy, weights, modulation, noise, environment)
            steps = self._envs.horizon * self._envs.size
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

    def set_tasks(self, goals: np.ndarray, seed: int, among=None) -> None:
        """Sets what the next reset gets, see `FixedHorizonEnvs.reset`."""
        self._given = goals, seed, among

    def _reset(self):
        self.failure = None
        observations = self._envs.reset(*self._given)
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
            action = distribution.mean() + distribution.stddev() * tf.cast(
                noise, distribution.dtype
            )
            return tf.cast(action, noise.dtype)

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


# What TensorFlow adds of its graph to an error begins so.
_DETAILS = " for '{{node"


def _distribution(policy, weights, observations, modulation, expected):
    """Returns the policy's distribution of actions; refuses one that does not fit."""
    given = f"observations {tuple(observations.shape)} (tasks, rollouts, observation size)"
    try:
        _check_tasks(policy, weights, modulation, observations.shape[0])
        distribution = policy.distribution(weights, observations, modulation)
    except ValueError as error:
        raise ValueError(
            f"the policy cannot be applied to {given} with these weights and this modulation, "
            f"which are either shared or one for each task: {str(error).split(_DETAILS)[0]}"
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
        """Returns what was recorded, `[T, R, L, ...]`."""
        return Trajectories(
            *(tf.constant(part.reshape(tasks, -1, *part.shape[1:])) for part in self._parts)
        )
