"""Trajectories: what the rollouts of a batch of tasks saw, did and received.

Axes, besides those of `episodes`: R rollouts of a task, L time steps, O observation size, A action
size.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Trajectories(NamedTuple):
    """R rollouts of each of T tasks, all of L steps.

    Attributes:
        observations: `[T, R, L, O]`.
        actions: `[T, R, L, A]`, the policy's own, before they are mapped to the environment's
            bounds.
        rewards: `[T, R, L]`.
        mask: `[T, R, L]`, 1 while an environment was stable, 0 from then on. Steps with 0 take
            part in no return, and rollouts that have some in no loss; a task encoder reads them
            as zeros.
    """

    observations: Any
    actions: Any
    rewards: Any
    mask: Any

    def returns(self):
        """Returns the undiscounted return of each rollout, `[T, R]`."""
        return tf.reduce_sum(self.rewards * self.mask, axis=-1)


def check_trajectories(trajectories: Trajectories, observation_size: int, action_size: int):
    """Raises ValueError unless all parts are of the same T, R >= 1 and L >= 1 and these sizes."""
    expected = {"observations": (observation_size,), "actions": (action_size,)}
    leading = tf.TensorShape(trajectories.rewards.shape)
    for name, part in trajectories._asdict().items():
        shape = tf.TensorShape(part.shape)
        axes = leading.as_list() if leading.rank == 3 else [None] * 3
        wanted = tf.TensorShape([*axes, *expected.get(name, ())])
        if not shape.is_compatible_with(wanted) or 0 in shape.as_list():
            letters = ", ".join(("T", "R", "L", *map(str, expected.get(name, ()))))
            raise ValueError(
                f"{name} has shape {tuple(shape)}; expected [{letters}] (tasks, rollouts, steps) "
                f"with at least one of each, as in rewards {tuple(leading)}."
            )


def check_values(trajectories: Trajectories):
    """Raises ValueError unless all values are finite, and those of the mask 0 or 1."""
    for name, part in trajectories._asdict().items():
        values = np.asarray(part)
        good = (values == 0) | (values == 1) if name == "mask" else np.isfinite(values)
        if not good.all():
            task, rollout, step, *_ = bad = np.argwhere(~good)[0]
            raise ValueError(
                f"{name} of task {task}, rollout {rollout}, step {step} is {values[tuple(bad)]}; "
                f"expected {'0 or 1' if name == 'mask' else 'finite values'}. Leave such rollouts "
                "out, or end their mask before."
            )
