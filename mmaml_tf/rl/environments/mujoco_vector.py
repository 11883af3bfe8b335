"""Steps many copies of a MuJoCo model on a pool of threads that outlives the step."""

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco import rollout

from mmaml_tf.division import processors
from mmaml_tf.rl.environments.goal_env import GoalVectorEnv
from mmaml_tf.rl.environments.mujoco_world import MujocoWorld


class ThreadedSteps:
    """Does what `world.advance` does, for up to N states at once.

    Args:
        world: the world whose model is stepped.
        count: largest number of states N.
        threads: number of threads; by default as many as the process may use processors.

    Raises:
        ValueError: for fewer than one thread.
    """

    def __init__(self, world: MujocoWorld, count: int, threads: int | None = None):
        threads = processors() if threads is None else threads
        if threads < 1:
            raise ValueError(f"threads={threads}: expected at least 1, or None for all processors.")
        self._world = world
        self._models = [world.model] * count
        self._data = [mujoco.MjData(world.model) for _ in range(threads)]
        # Zero threads means the calling one.
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        # Small pieces keep all threads busy to the end, whatever else the machine does.
        self._chunk = max(1, count // (40 * threads))
        # MuJoCo's layout of a state is (time, positions, velocities); the time stays 0.
        self._before = np.zeros((count, 1 + world.state_size))
        self._controls = np.empty((count, world.frame_skip, world.action_size))
        self._after = np.empty((count, world.frame_skip, 1 + world.state_size))

    def __call__(self, states, actions):
        """Steps `[n, S]` states with `[n, A]` actions; returns new states and `stable` `[n]`."""
        if not len(states):
            return states, np.ones(0, bool)  # MuJoCo crashes on an empty batch
        part = slice(len(states))
        before, after, controls = self._before[part], self._after[part], self._controls[part]
        before[:, 1:] = states
        controls[:] = actions[:, None]
        self._pool.rollout(
            self._models[part],
            self._data,
            before,
            controls,
            skip_checks=True,
            nstep=self._world.frame_skip,
            state=after,
            chunk_size=self._chunk,
        )
        new = after[:, -1, 1:].copy()
        return new, self._world.stable(new, after[:, -1, 0])

    def close(self) -> None:
        """Ends the threads."""
        self._pool.close()


class MujocoVectorEnv(GoalVectorEnv):
    """N copies of a MuJoCo environment, stepped by threads; see `GoalVectorEnv`.

    Args:
        world: the physics.
        num_envs: number of environments N.
        modes: number or names of the modes that goals are drawn from.
        max_episode_steps: horizon L.
        render_mode: None.
        threads: number of threads; by default as many as the process may use processors.

    Raises:
        ValueError: as `GoalVectorEnv`, and for fewer than one thread.
    """

    def __init__(
        self,
        world: MujocoWorld,
        num_envs: int,
        modes: int | Sequence[str],
        max_episode_steps: int,
        render_mode: str | None,
        threads: int | None,
    ):
        super().__init__(world, num_envs, modes, max_episode_steps, render_mode)
        self._advance = ThreadedSteps(world, num_envs, threads)

    def close_extras(self, **kwargs):
        """Ends the threads."""
        self._advance.close()
