"""What the environments on MuJoCo share: stepping a model, and the reward."""

from abc import abstractmethod

import mujoco
import numpy as np

from mmaml_tf.rl.environments.rendering import MujocoRenderer
from mmaml_tf.rl.environments.world import World, stable_states


class MujocoWorld(World):
    """A MuJoCo model with motors, a part of which is to reach the goal.

    A state is (positions `[nq]`, velocities `[nv]`). The reward is minus the L1 distance in space
    of that part from the goal, minus 0.1·‖action‖².

    Args:
        model: the compiled model; its warm start is switched off.

    Attributes:
        view: the camera of pictures, see `MujocoRenderer`.
        goal_radius: radius of the sphere that shows the goal.
        frame_skip: MuJoCo's steps in one step of the environment.
    """

    view: dict[str, float]
    goal_radius: float
    action_limit = 1.0
    frame_skip = 2

    def __init__(self, model: mujoco.MjModel):
        # With a warm start a step would depend on more than the state.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_WARMSTART)
        self.model = model
        self.state_size = model.nq + model.nv
        self.action_size = model.nu
        self._data = mujoco.MjData(model)
        self._renderer = None

    @abstractmethod
    def reaching_part(self, states) -> np.ndarray:
        """Returns where in space, `[N, 3]`, the part is that is to reach the goal.

        It is computed from the positions: what MuJoCo keeps lags behind them by a step.
        """

    def advance(self, states, actions):
        """Steps `[N, S]` states one after the other; returns new states and `stable` `[N]`."""
        new = np.empty_like(states)
        times = np.empty(len(states))
        for index, (state, action) in enumerate(zip(states, actions, strict=True)):
            times[index] = self._advance_one(state, action, out=new[index])
        return new, self.stable(new, times)

    def stable(self, states, times) -> np.ndarray:
        """Returns `[N]`: whether states and simulated times are those of an intact simulation.

        MuJoCo stops or starts over when a simulation breaks down; then its time is not that of
        a whole step.
        """
        timestep = self.model.opt.timestep
        in_time = np.abs(times - self.frame_skip * timestep) < 0.5 * timestep
        return stable_states(states) & in_time

    def reward(self, states, actions, goals):
        """Returns the rewards `[N]` of having come to `[N, S]` states with `[N, A]` actions."""
        distances = np.abs(self.reaching_part(states) - goals).sum(axis=1)
        return -distances - 0.1 * (actions * actions).sum(axis=1)

    def render(self, state, goal):
        """Draws one state `[S]` and its goal `[3]` as `[400, 400, 3]` uint8."""
        if self._renderer is None:
            self._renderer = MujocoRenderer(self.model, self.view, self.goal_radius)
        return self._renderer.draw(state[: self.model.nq], goal)

    def close(self):
        """Frees what was reserved for drawing."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _advance_one(self, state, action, out):
        data, positions = self._data, self.model.nq
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:] = state[:positions], state[positions:]
        data.ctrl[:] = action
        for _ in range(self.frame_skip):
            mujoco.mj_step(self.model, data)
            if data.warning.number.any():
                break
        out[:positions], out[positions:] = data.qpos, data.qvel
        return data.time
