"""Continuous bandits: the reward of an action is minus its squared distance to the goal."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

BOUND = 10.0


def register():
    """Registers "Bandit-v0", whose episodes last one step unless `max_episode_steps` is given."""
    gymnasium.register("Bandit-v0", vector_entry_point=BanditVectorEnv, max_episode_steps=1)


class BanditVectorEnv(gymnasium.vector.VectorEnv):
    """N bandits. Observations are random; the first environment may become unstable at a step."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    single_action_space = gymnasium.spaces.Box(-BOUND, BOUND, (2,))

    def __init__(self, num_envs, max_episode_steps, unstable_at=None):
        self.num_envs, self.horizon = num_envs, max_episode_steps
        self.unstable_at = unstable_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.steps = np.asarray(options["task"]), 0
        return self._observe(), {"task": self.goal}

    def step(self, actions):
        self.steps += 1
        rewards = -((actions - self.goal) ** 2).sum(axis=1)
        truncated = np.full(self.num_envs, self.steps == self.horizon)
        unstable = (np.arange(self.num_envs) == 0) & (self.steps == self.unstable_at)
        return self._observe(), rewards, np.zeros_like(truncated), truncated, {"unstable": unstable}

    def _observe(self):
        return self.np_random.normal(size=(self.num_envs, 3))
