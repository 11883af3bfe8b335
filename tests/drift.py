"""A small world with goals, as a vector environment and as a single one; without TensorFlow."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

LOW, HIGH = np.float32([-0.5, -1.0]), np.float32([0.5, 2.0])
HORIZON = 6


def register():
    """Registers "Drift-v0", which has both forms."""
    gymnasium.register(
        "Drift-v0", "drift:DriftEnv", vector_entry_point=DriftVectorEnv, max_episode_steps=HORIZON
    )


def move(state, action, goal):
    """Moves states `[..., 4]` by one step; returns the new ones and rewards `[...]`."""
    speed = 0.9 * state[..., 2:] + action
    position = state[..., :2] + np.sin(speed)
    return np.concatenate([position, speed], axis=-1), -np.abs(position - goal).sum(axis=-1)


class DriftVectorEnv(gymnasium.vector.VectorEnv):
    """Points that drift; a fault can be asked for, and the step at which it happens."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    single_action_space = gymnasium.spaces.Box(LOW, HIGH)

    def __init__(self, num_envs, max_episode_steps, fault=None, at=4, action_space=None):
        self.num_envs, self.horizon, self.fault, self.at = num_envs, max_episode_steps, fault, at
        if action_space is not None:
            self.single_action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.steps = np.asarray(options["task"]), 0
        if self.goal.shape != (self.num_envs, 2):
            raise ValueError(f"task has shape {self.goal.shape}.")
        self.state = self.np_random.normal(size=(self.num_envs, 4))
        infos = {} if self.fault == "ignores goals" else {"task": self.goal}
        return self.state, infos

    def step(self, actions):
        self.steps += 1
        # In place: whoever needs an observation later must have copied it.
        self.state[:], rewards = move(self.state, actions, self.goal)
        terminated, truncated = np.full((2, self.num_envs), False)
        truncated[:] = self.steps == self.horizon
        observations, infos = self.state, {}
        if self.fault == "unstable":
            # Told once: an environment need not repeat it.
            infos["unstable"] = (np.arange(self.num_envs) % 4 == 1) & (self.steps == self.at)
        elif self.fault and self.steps == self.at:
            if self.fault == "terminates":
                terminated[1] = True
            elif self.fault == "truncates":
                truncated[1] = not truncated[1]
            elif self.fault == "observation shape":
                observations = observations[:, :3]
            elif self.fault == "reward shape":
                rewards = rewards[:, None]
            elif self.fault == "raises":
                raise RuntimeError("boom")
            elif self.fault == "unstable shape":
                infos["unstable"] = np.zeros((self.num_envs, 1), bool)
            elif self.fault == "words":
                rewards = rewards.astype(str)
            elif self.fault == "reward":
                rewards[2] = np.nan
            elif self.fault == "observation":
                observations[2] = np.nan
        return observations, rewards, terminated, truncated, infos


class DriftEnv(gymnasium.Env):
    """One such point."""

    observation_space = DriftVectorEnv.single_observation_space
    action_space = DriftVectorEnv.single_action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.state = np.asarray(options["task"]), self.np_random.normal(size=4)
        return self.state, {"task": self.goal}

    def step(self, action):
        self.state, reward = move(self.state, action, self.goal)
        return self.state, reward, False, False, {"unstable": False}
