"""What of the outer gradient changes in the course of training, as in MAML++."""

from typing import Any, NamedTuple

import tensorflow as tf


class Phase(NamedTuple):
    """What the outer gradient is of in one part of training.

    Attributes:
        first_order: whether the inner gradients count as constants.
        multi_step: whether the query losses after all inner steps count, not the last one alone.
    """

    first_order: bool = False
    multi_step: bool = False


def phases(
    first_order: bool, first_order_until: int | None, multi_step_until: int | None
) -> list[tuple[int, Phase]]:
    """Returns the outer steps at which another outer gradient begins, with its `Phase`.

    Args:
        first_order: see `InnerLoop`.
        first_order_until: see `InnerLoop`.
        multi_step_until: see `InnerLoop`.
    """
    ends = first_order_until or 0, multi_step_until or 0
    return [
        (start, Phase(first_order or start < ends[0], start < ends[1]))
        for start in sorted({0, *ends})
    ]


def step_weights(steps: int, until: int, outer_step: tf.Tensor, dtype: Any) -> tf.Tensor:
    """Returns the weight of the query loss after each inner step, `[steps]`; their sum is 1.

    They are equal at first, and go linearly to that of the last step alone.

    Args:
        steps: number of inner steps.
        until: the outer step from which on the last one counts alone.
        outer_step: scalar, number of outer steps taken.
        dtype: type of the result.
    """
    progress = tf.cast(outer_step, dtype) / until
    early = (1 - tf.minimum(progress, 1)) / steps
    return tf.concat([tf.fill([steps - 1], early), [1 - (steps - 1) * early]], axis=0)
