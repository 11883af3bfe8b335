"""A point with momentum in the plane, whose reward is its distance to the goal."""

from collections.abc import Sequence

import numpy as np

from mmaml_tf.rl.environments.goal_env import GoalEnv, GoalVectorEnv
from mmaml_tf.rl.environments.world import World, stable_states

_PIXELS = 400
_VIEW = 10.0


class PointMass(World):
    """The point's physics: an action is added to the velocity, the velocity to the position.

    A state is (x, y, velocity in x, velocity in y), and is observed as it is. The reward is minus
    the Euclidean distance to the goal after the step. Positions start uniformly within ±0.2,
    velocities within ±0.1.
    """

    environment = "point_mass"
    state_size = 4
    observation_size = 4
    action_size = 2
    action_limit = 0.1

    def start(self, rng, count):
        """Draws `[N, 4]` states to start from."""
        return rng.uniform(-1.0, 1.0, (count, 4)) * (0.2, 0.2, 0.1, 0.1)

    def advance(self, states, actions):
        """Steps `[N, 4]` states with `[N, 2]` actions; returns new states and `stable` `[N]`."""
        new = np.empty_like(states)
        velocity = np.add(states[:, 2:], actions, out=new[:, 2:])
        np.add(states[:, :2], velocity, out=new[:, :2])
        return new, stable_states(new)

    def observe(self, states):
        """Returns the states."""
        return states.copy()

    def reward(self, states, actions, goals):
        """Returns minus the distances `[N]` of `[N, 4]` states to their goals `[N, 2]`."""
        offset = states[:, :2] - goals
        return -np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)

    def render(self, state, goal):
        """Draws the origin (cross), the goal (red) and the point (blue), `[400, 400, 3]`."""
        # Pixel centres, seen over ±10 units; a point that has left the view sticks to its edge.
        x = np.linspace(-_VIEW, _VIEW, _PIXELS)
        y = x[::-1, None]
        image = np.full((_PIXELS, _PIXELS, 3), 255, np.uint8)
        near = (abs(x) < 0.5) & (abs(y) < 0.5)
        image[near & ((abs(x) < 0.05) | (abs(y) < 0.05))] = (160, 160, 160)
        for centre, radius, colour in ((goal, 0.5, (200, 30, 30)), (state, 0.3, (30, 60, 200))):
            centre = np.clip(centre[:2], -_VIEW, _VIEW)
            image[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = colour
        return image


class PointMassEnv(GoalEnv):
    """One point mass; see `PointMass` for its physics and `GoalEnv` for its interface."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, modes: int | Sequence[str] = 1, render_mode: str | None = None):
        super().__init__(PointMass(), modes, render_mode)


class PointMassVectorEnv(GoalVectorEnv):
    """N point masses; see `PointMass` for their physics and `GoalVectorEnv` for the interface."""

    def __init__(
        self,
        num_envs: int = 1,
        modes: int | Sequence[str] = 1,
        max_episode_steps: int = 100,
        render_mode: str | None = None,
    ):
        super().__init__(PointMass(), num_envs, modes, max_episode_steps, render_mode)
