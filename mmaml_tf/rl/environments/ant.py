"""A four-legged walker in space that is to come to a goal on the ground."""

from collections.abc import Sequence
from importlib import resources

import mujoco
import numpy as np

from mmaml_tf.rl.environments.goal_env import GoalEnv
from mmaml_tf.rl.environments.mujoco_vector import MujocoVectorEnv
from mmaml_tf.rl.environments.mujoco_world import MujocoWorld


class Ant(MujocoWorld):
    """The physics of Gymnasium's ant: eight motors, 0.02 s a step.

    A state is the torso's place (3) and quaternion (4), eight joint angles, and the velocities of
    all (14); it is observed as it is. Positions start within ±0.1 of the model's, velocities are
    normal with standard deviation 0.1. The ant may fall over: episodes do not end early.
    """

    environment = "ant"
    observation_size = 29
    view = {"distance": 12.0, "azimuth": 90.0, "elevation": -45.0}  # noqa: RUF012
    goal_radius = 0.3

    def __init__(self):
        asset = resources.files("gymnasium") / "envs" / "mujoco" / "assets" / "ant.xml"
        super().__init__(mujoco.MjModel.from_xml_string(asset.read_text()))

    def start(self, rng, count):
        """Draws `[N, 29]` states to start from."""
        positions = self.model.qpos0 + rng.uniform(-0.1, 0.1, (count, self.model.nq))
        velocities = 0.1 * rng.standard_normal((count, self.model.nv))
        return np.concatenate([positions, velocities], axis=1)

    def observe(self, states):
        """Returns the states."""
        return states.copy()

    def reaching_part(self, states):
        """Returns the torso's places `[N, 3]`."""
        return states[:, :3]


class AntEnv(GoalEnv):
    """One ant; see `Ant` for its physics and `GoalEnv` for its interface."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, modes: int | Sequence[str] = 1, render_mode: str | None = None):
        super().__init__(Ant(), modes, render_mode)


class AntVectorEnv(MujocoVectorEnv):
    """N ants; see `Ant` for their physics and `MujocoVectorEnv` for the interface."""

    def __init__(
        self,
        num_envs: int = 1,
        modes: int | Sequence[str] = 1,
        max_episode_steps: int = 250,
        render_mode: str | None = None,
        threads: int | None = None,
    ):
        super().__init__(Ant(), num_envs, modes, max_episode_steps, render_mode, threads)
