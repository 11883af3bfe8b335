"""Rules that remember the gradients of a task's earlier steps."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mmaml_tf.arguments import positive_number
from mmaml_tf.update_rules.update_rule import LEARNING_RATE, UpdateRule


@keras.saving.register_keras_serializable("mmaml_tf")
class Momentum(UpdateRule):
    """w - α·v with v = μ·v + g, which starts from zero for each task (Polyak 1964).

    Args:
        learning_rate: α.
        momentum: μ, between 0 and 1.
        **kwargs: see `UpdateRule`.

    Raises:
        ValueError: for a learning rate or a momentum out of range.
    """

    def __init__(self, learning_rate: float = LEARNING_RATE, momentum: float = 0.9, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.momentum = _fraction("momentum", momentum)

    def initial_state(self, weights: Sequence) -> Any:
        """Returns v, zeros like the weights."""
        return [tf.zeros_like(w) for w in weights]

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """See `UpdateRule.update`."""
        del step
        velocity = [self.momentum * v + g for v, g in zip(state, gradients, strict=True)]
        following = zip(weights, velocity, strict=True)
        return [w - self.learning_rate * v for w, v in following], velocity

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"momentum": self.momentum}


@keras.saving.register_keras_serializable("mmaml_tf")
class Adam(UpdateRule):
    """Adam (Kingma and Ba 2015), which starts anew for each task.

    With the moments' means m and v, corrected for their start from zero, a step is
    w - α·m / √(v + ε²). The published form, √v + ε, has no derivative at a gradient of zero, where
    this one has all; the two differ by less than ε.

    Args:
        learning_rate: α.
        beta_1: decay of the mean of gradients, between 0 and 1.
        beta_2: decay of the mean of squared gradients, between 0 and 1.
        epsilon: ε, greater than 0.
        **kwargs: see `UpdateRule`.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        learning_rate: float = LEARNING_RATE,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = _fraction("beta_1", beta_1)
        self.beta_2 = _fraction("beta_2", beta_2)
        self.epsilon = positive_number("epsilon", epsilon)

    def initial_state(self, weights: Sequence) -> Any:
        """Returns both means, zeros like the weights."""
        return [tf.zeros_like(w) for w in weights], [tf.zeros_like(w) for w in weights]

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """See `UpdateRule.update`."""
        means, squares = (
            [beta * m + (1 - beta) * part for m, part in zip(moments, parts, strict=True)]
            for beta, moments, parts in (
                (self.beta_1, state[0], gradients),
                (self.beta_2, state[1], [tf.square(g) for g in gradients]),
            )
        )
        following = []
        for w, m, v in zip(weights, means, squares, strict=True):
            taken = tf.cast(step + 1, w.dtype)
            # 1 - β^taken, where β is close to 1.
            m /= -tf.math.expm1(taken * math.log(self.beta_1))
            v /= -tf.math.expm1(taken * math.log(self.beta_2))
            following.append(w - self.learning_rate * m * tf.math.rsqrt(v + self.epsilon**2))
        return following, (means, squares)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return super().get_config() | own


def _fraction(name, value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and 0 < value < 1):
        raise ValueError(f"{name}={value!r}: expected a number between 0 and 1.")
    return float(value)
