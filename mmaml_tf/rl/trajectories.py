"""Trajectories: what the rollouts of a batch of tasks saw, did and received.

Axes, besides those of `episodes`: R rollouts of a task, L time steps, O observation size, A action
size.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.checks import as_tensor


class Trajectories(NamedTuple):
    """R rollouts of each of T tasks, all of L steps.

    Attributes:
        observations: `[T, R, L, O]`.
        actions: `[T, R, L, A]`, the policy's own, before they are mapped to the environment's
            bounds.
        rewards: `[T, R, L]`.
        mask: `[T, R, L]`, 1 while an environment was stable, 0 from then on. A rollout that has
            steps with 0 broke: it is no sample, and takes part in no return and no loss. A task
            encoder reads these steps as zeros.
    """

    observations: Any
    actions: Any
    rewards: Any
    mask: Any

    @property
    def stable(self) -> tf.Tensor:
        """Which rollouts were stable to their end, `[T, R]` boolean."""
        return tf.reduce_min(self.mask, axis=-1) > 0

    def returns(self) -> tf.Tensor:
        """Returns the undiscounted return of each rollout, `[T, R]`, NaN of those that broke."""
        total = tf.reduce_sum(self.rewards, axis=-1)
        return tf.where(self.stable, total, tf.constant(math.nan, total.dtype))

    def task_returns(self) -> tf.Tensor:
        """Returns each task's mean return over the rollouts that did not break, `[T]`.

        It is NaN where all of them broke.
        """
        total = tf.where(self.stable, self.returns(), 0)
        count = tf.reduce_sum(tf.cast(self.stable, total.dtype), axis=1)
        return tf.reduce_sum(total, axis=1) / count


def as_trajectories(data, observation_size: int, action_size: int) -> Trajectories:
    """Returns `Trajectories` of tensors, all of the same T, R >= 1 and L >= 1.

    Args:
        data: `Trajectories`, or a tuple or dictionary of their fields.
        observation_size: size O of an observation.
        action_size: size A of an action.

    Raises:
        ValueError: for anything else, or other shapes.
    """
    names = Trajectories._fields
    if isinstance(data, dict) and set(data) == set(names):
        data = Trajectories(**data)
    if type(data) in (tuple, list) and len(data) == len(names):
        data = Trajectories(*data)
    if not isinstance(data, Trajectories):
        raise ValueError(
            f"trajectories is a {type(data).__name__}; expected mmaml_tf.rl.Trajectories"
            f"({', '.join(names)}), or a tuple or dictionary of these."
        )
    data = Trajectories(*(as_tensor(name, part, "") for name, part in data._asdict().items()))
    expected = {"observations": (observation_size,), "actions": (action_size,)}
    leading = tf.TensorShape(data.rewards.shape)
    for name, part in data._asdict().items():
        axes = leading.as_list() if leading.rank == 3 else [None] * 3
        wanted = tf.TensorShape([*axes, *expected.get(name, ())])
        if not part.shape.is_compatible_with(wanted) or 0 in part.shape.as_list():
            letters = ", ".join(("T", "R", "L", *map(str, expected.get(name, ()))))
            raise ValueError(
                f"{name} has shape {tuple(part.shape)}; expected [{letters}] (tasks, rollouts, "
                f"steps) with at least one of each, as in rewards {tuple(leading)}."
            )
    return data


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
