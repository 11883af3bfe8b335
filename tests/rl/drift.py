"""A small environment with goals, once as a vector environment and once single; no TensorFlow."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

LOW, HIGH = np.float32([-0.5, -1.0]), np.float32([0.5, 2.0])
HORIZON = 6


def observe(position, speed):
    return np.concatenate([position, speed], axis=-1)


def move(position, speed, action, goal):
    """One step of N points, or of one: position, speed and reward."""
    speed = 0.9 * speed + action
    position = position + np.sin(speed)
    return position, speed, -np.abs(position - goal).sum(axis=-1)


class DriftVectorEnv(gymnasium.vector.VectorEnv):
    """Points that drift; faults can be asked for by name, with the step at which they happen."""

    def __init__(self, num_envs, max_episode_steps, fault=None, at=None):
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.num_envs, self.horizon, self.fault, self.at = num_envs, max_episode_steps, fault, at
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(LOW, HIGH)
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        goal = np.asarray(options["task"])
        if goal.shape != (self.num_envs, 2):
            raise ValueError(f"task has shape {goal.shape}; expected {(self.num_envs, 2)}.")
        self.goal, self.steps, self.actions = goal, 0, []
        self.position, self.speed = self.np_random.normal(size=(2, self.num_envs, 2))
        return observe(self.position, self.speed), {}

    def step(self, actions):
        self.actions.append(actions)
        self.steps += 1
        happens = self.steps == self.at
        self.position, self.speed, rewards = move(self.position, self.speed, actions, self.goal)
        ended = np.full((2, self.num_envs), False)
        ended[1] = self.steps == self.horizon
        observations, infos = observe(self.position, self.speed), {}
        if happens and self.fault == "terminates":
            ended[0, 1] = True
        if happens and self.fault == "truncates":
            ended[1, 1] = True
        if self.fault == "never ends":
            ended[:] = False
        if happens and self.fault == "observation":
            observations = observations[:, :3]
        if happens and self.fault == "reward":
            rewards = rewards[:, None]
        if happens and self.fault == "nan reward":
            rewards[2] = np.nan
        if happens and self.fault == "nan observation":
            observations[2] = np.nan
        if self.fault == "unstable":
            # Once is enough: rollouts need no environment to repeat it.
            infos["unstable"] = (np.arange(self.num_envs) % 4 == 1) & happens
        return observations, rewards, *ended, infos


class DriftEnv(gymnasium.Env):
    """One such point."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(LOW, HIGH)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = np.asarray(options["task"])
        self.position, self.speed = self.np_random.normal(size=(2, 2))
        return observe(self.position, self.speed), {}

    def step(self, action):
        self.position, self.speed, reward = move(self.position, self.speed, action, self.goal)
        return observe(self.position, self.speed), reward, False, False, {"unstable": False}
