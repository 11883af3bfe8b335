"""Gymnasium's interface to a world whose task is a goal: one environment, or N in lock-step."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from mmaml_tf.rl.environments.world import World
from mmaml_tf.rl.goal_modes import GoalModes


class GoalEnv(gymnasium.Env):
    """One environment whose task is a goal, which is not observed.

    `reset(options={"task": goal, "state": state})` sets the goal `[G]` and the state `[S]`; what
    is not given is drawn. Episodes never terminate. Actions are clipped to the action space.
    `info["unstable"]` of `step` tells whether the simulation broke down: from then on the state
    stays the last good one and rewards are 0.

    Args:
        world: the physics.
        modes: number or names of the modes that goals are drawn from.
        render_mode: None or "rgb_array".

    Attributes:
        world: the physics.

    Raises:
        ValueError: for unknown modes or render modes; by `reset`, for unknown options and tasks
            or states of a wrong shape; by `step`, for actions of a wrong shape or not finite.
        gymnasium.error.ResetNeeded: by `step` and `render` before the first `reset`.
    """

    def __init__(self, world: World, modes: int | Sequence[str], render_mode: str | None):
        _check_render_mode(render_mode, self.metadata["render_modes"])
        self.world = world
        self._modes = GoalModes(world.environment, modes)
        self.render_mode = render_mode
        self.observation_space, self.action_space = _spaces(world)
        self._state = None

    @property
    def task(self) -> np.ndarray:
        """The goal `[G]` of the present episode."""
        _check_started(self._state)
        return self._goal[0].copy()

    @property
    def state(self) -> np.ndarray:
        """The present state `[S]`; `reset(options={"state": ...})` takes it."""
        _check_started(self._state)
        return self._state[0].copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; returns the observation `[O]` and {"task": goal}."""
        task, state = _read(options, (self._modes.goal_size,), (self.world.state_size,))
        super().reset(seed=seed)
        # Both are drawn even if given, so that a seed means the same with and without options.
        goal, start = _draw(self.world, self._modes, self.np_random, 1)
        self._goal = goal if task is None else task[None]
        self._state = start if state is None else state[None]
        self._unstable = False
        return self.world.observe(self._state)[0], {"task": self.task}

    def step(self, action):
        """Advances by one step; returns Gymnasium's five values."""
        _check_started(self._state)
        action = _check_actions(action, self.action_space.shape, self.world.action_limit)[None]
        reward = 0.0
        if not self._unstable:
            state, stable = self.world.advance(self._state, action)
            self._unstable = not stable[0]
            if stable[0]:
                self._state = state
                reward = float(self.world.reward(state, action, self._goal)[0])
        observation = self.world.observe(self._state)[0]
        return observation, reward, False, False, {"unstable": self._unstable}

    def render(self):
        """Draws the state and the goal as `[height, width, 3]` uint8, if asked for at creation."""
        _check_started(self._state)
        if self.render_mode is None:
            return None
        return self.world.render(self._state[0], self._goal[0])

    def close(self):
        """Frees the simulation's resources."""
        self.world.close()


class GoalVectorEnv(gymnasium.vector.VectorEnv):
    """N environments in lock-step, stepped as one batch without a process for each.

    Each has a task of its own: `reset(options={"task": goals, "state": states})` sets goals
    `[N, G]` and states `[N, S]`; what is not given is drawn. With `options={"among": (rows, M)}`
    it is drawn for M environments, of which these are the rows `[N]`. Episodes never terminate and
    are all truncated after `max_episode_steps`; then `reset` is due. Actions are clipped to the
    action space. `infos["unstable"]` of `step` is a boolean `[N]`: a simulation that broke down
    keeps its last good state and earns 0 until the end of the episode, the others go on.

    Args:
        world: the physics.
        num_envs: number of environments N.
        modes: number or names of the modes that goals are drawn from.
        max_episode_steps: horizon L.
        render_mode: None.

    Attributes:
        world: the physics.

    Raises:
        ValueError: for unknown modes or counts below 1; by `reset`, for unknown options and
            tasks or states of a wrong shape; by `step`, for actions of a wrong shape or not
            finite.
        gymnasium.error.ResetNeeded: by `step` before the first `reset` or after the horizon.
    """

    def __init__(
        self,
        world: World,
        num_envs: int,
        modes: int | Sequence[str],
        max_episode_steps: int,
        render_mode: str | None,
    ):
        _check_render_mode(render_mode, ())
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1.")
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.world = world
        self._advance = world.advance
        self._modes = GoalModes(world.environment, modes)
        self._horizon = max_episode_steps
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _spaces(world)
        self.observation_space, self.action_space = _spaces(world, num_envs)
        self._states = None
        self._all = np.ones(num_envs, bool)

    @property
    def tasks(self) -> np.ndarray:
        """The goals `[N, G]` of the present episodes."""
        _check_started(self._states)
        return self._goals.copy()

    @property
    def states(self) -> np.ndarray:
        """The present states `[N, S]`; `reset(options={"state": ...})` takes them."""
        _check_started(self._states)
        return self._states.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts all episodes; returns observations `[N, O]` and {"task": goals}."""
        count = self.num_envs
        shapes = (count, self._modes.goal_size), (count, self.world.state_size)
        options = dict(options or {})
        rows, drawn = options.pop("among", (np.arange(count), count))
        tasks, states = _read(options, *shapes)
        # One generator for the whole batch: N of them would cost more than the episode.
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)
        goals, starts = _draw(self.world, self._modes, self.np_random, drawn)
        self._goals = goals[rows] if tasks is None else tasks
        self._states = starts[rows] if states is None else states
        self._live = slice(None)
        self._unstable = np.zeros(count, bool)
        self._elapsed = 0
        infos = {"task": self.tasks, "_task": self._all.copy(), "among": rows}
        return self.world.observe(self._states), infos

    def step(self, actions):
        """Advances all by one step; returns Gymnasium's five values, each with a leading N."""
        _check_started(self._states)
        if self._elapsed == self._horizon:
            raise ResetNeeded(f"all episodes ended after {self._horizon} steps: call reset().")
        actions = _check_actions(actions, self.action_space.shape, self.world.action_limit)
        rewards = np.zeros(self.num_envs)
        live = self._live
        states, stable = self._advance(self._states[live], actions[live])
        if not stable.all():
            live = self._live = np.arange(self.num_envs)[live][stable]
            self._unstable = np.isin(np.arange(self.num_envs), live, invert=True)
            states = states[stable]
        self._states[live] = states
        rewards[live] = self.world.reward(states, actions[live], self._goals[live])
        self._elapsed += 1
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.full(self.num_envs, self._elapsed == self._horizon)
        infos = {"unstable": self._unstable.copy(), "_unstable": self._all.copy()}
        return self.world.observe(self._states), rewards, terminated, truncated, infos

    def close_extras(self, **kwargs):
        """Frees the simulation's resources."""
        self.world.close()


def _spaces(world, *batch):
    box = gymnasium.spaces.Box
    limit = world.action_limit
    return (
        box(-math.inf, math.inf, (*batch, world.observation_size), np.float64),
        box(-limit, limit, (*batch, world.action_size), np.float64),
    )


def _draw(world, modes, rng, count):
    return modes.draw(rng, count), world.start(rng, count)


def _read(options, *shapes):
    """Returns copies of the options "task" and "state", or None for what is not given."""
    options = options or {}
    names = ("task", "state")
    if unknown := set(options) - set(names):
        raise ValueError(f"options {sorted(unknown)} are unknown to reset(); it takes {names}.")
    values = []
    for name, shape in zip(names, shapes, strict=True):
        value = options.get(name)
        value = None if value is None else np.array(value, np.float64)
        if value is not None and (value.shape != shape or not np.isfinite(value).all()):
            raise ValueError(
                f"options[{name!r}] has shape {value.shape}; expected finite values of shape "
                f"{shape}."
            )
        values.append(value)
    return values


def _check_actions(actions, shape, limit):
    """Returns the actions clipped to ±limit, as float64."""
    actions = np.asarray(actions, np.float64)
    if actions.shape != shape:
        raise ValueError(f"actions have shape {actions.shape}; expected {shape}.")
    if not np.isfinite(actions).all():
        rows = np.flatnonzero(~np.isfinite(actions.reshape(-1, shape[-1])).all(axis=1))
        raise ValueError(
            f"actions of {len(rows)} environments are not finite (first: {rows[:5].tolist()}); "
            "the policy that gave them has diverged."
        )
    return np.maximum(np.minimum(actions, limit), -limit)


def _check_started(state):
    if state is None:
        raise ResetNeeded("call reset() first; no episode has been started.")


def _check_render_mode(render_mode, known):
    if render_mode is not None and render_mode not in known:
        raise ValueError(f"render_mode={render_mode!r}: expected None or one of {tuple(known)}.")
