"""A planar arm of three links whose fingertip is to reach a goal above the table."""

from collections.abc import Sequence
from importlib import resources

import mujoco
import numpy as np

from mmaml_tf.rl.environments.goal_env import GoalEnv
from mmaml_tf.rl.environments.mujoco_vector import MujocoVectorEnv
from mmaml_tf.rl.environments.mujoco_world import MujocoWorld

_LENGTHS = (0.1, 0.1, 0.11)
_HEIGHT = 0.01


class Reacher(MujocoWorld):
    """The arm's physics: a motor on each of three joints, 0.02 s a step.

    A state is three joint angles and their velocities. The observation is (cos q0, cos q1,
    sin q0, sin q1, q2, velocity of joint 0, of joint 1). Angles start uniformly within ±0.1,
    velocities within ±0.005.
    """

    environment = "reacher"
    observation_size = 7
    view = {"distance": 0.9, "azimuth": 90.0, "elevation": -70.0}  # noqa: RUF012
    goal_radius = 0.012

    def __init__(self):
        asset = resources.files(__package__) / "assets" / "reacher.xml"
        super().__init__(mujoco.MjModel.from_xml_string(asset.read_text()))

    def start(self, rng, count):
        """Draws `[N, 6]` states to start from."""
        return rng.uniform(-1.0, 1.0, (count, 6)) * np.repeat((0.1, 0.005), 3)

    def observe(self, states):
        """Returns the observations `[N, 7]` of `[N, 6]` states."""
        angles = states[:, :2]
        return np.concatenate([np.cos(angles), np.sin(angles), states[:, 2:5]], axis=1)

    def reaching_part(self, states):
        """Returns the fingertip's places `[N, 3]`."""
        # The direction of each link is the sum of the angles up to its joint.
        directions = np.cumsum(states[:, :3], axis=1)
        place = np.full((len(states), 3), _HEIGHT)
        place[:, 0] = np.cos(directions) @ _LENGTHS
        place[:, 1] = np.sin(directions) @ _LENGTHS
        return place


class ReacherEnv(GoalEnv):
    """One arm; see `Reacher` for its physics and `GoalEnv` for its interface."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, modes: int | Sequence[str] = 1, render_mode: str | None = None):
        super().__init__(Reacher(), modes, render_mode)


class ReacherVectorEnv(MujocoVectorEnv):
    """N arms; see `Reacher` for their physics and `MujocoVectorEnv` for the interface."""

    def __init__(
        self,
        num_envs: int = 1,
        modes: int | Sequence[str] = 1,
        max_episode_steps: int = 50,
        render_mode: str | None = None,
        threads: int | None = None,
    ):
        super().__init__(Reacher(), num_envs, modes, max_episode_steps, render_mode, threads)
