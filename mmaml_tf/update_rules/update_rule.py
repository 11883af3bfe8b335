"""The contract of update rules."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.arguments import positive_number

#: the learning rate of a rule that is not given one
LEARNING_RATE = 1e-3


class UpdateRule(keras.layers.Layer):
    """Maps weights and their gradients to new weights, differentiably.

    A subclass defines `update`. A rule that learns something creates its variables in
    `build_for`, and a rule that remembers the steps before it returns its memory from
    `initial_state`. The outer loop trains the variables, which are clipped as a group of their
    own. Setting `trainable = False` keeps them as they are.

    >>> import keras
    >>> import mmaml_tf as mm
    >>> import tensorflow as tf
    >>> @keras.saving.register_keras_serializable("mine")
    ... class OneRate(mm.update_rules.UpdateRule):
    ...     '''One learned rate for all weights.'''
    ...
    ...     def build_for(self, variables, steps):
    ...         start = keras.initializers.Constant(self.learning_rate)
    ...         self.rate = self.add_weight(shape=(), initializer=start, name="rate")
    ...
    ...     def update(self, step, weights, gradients, state):
    ...         rate = tf.convert_to_tensor(self.rate)
    ...         return [w - rate * g for w, g in zip(weights, gradients)], state
    >>> learner = mm.MAML(mm.networks.MLP(), inner_loop=mm.InnerLoop(5, update=OneRate(0.01)))

    Args:
        learning_rate: step size, greater than 0; where rates are learned, what they start from.
        **kwargs: see `keras.layers.Layer`.

    Raises:
        ValueError: for a learning rate that is not positive.
    """

    def __init__(self, learning_rate: float = LEARNING_RATE, **kwargs):
        super().__init__(**kwargs)
        self._learning_rate = positive_number("inner learning_rate", learning_rate)

    @property
    def learning_rate(self) -> float:
        """The step size, or what learned rates started from, which is fixed once they exist."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self.variables:
            raise ValueError(
                f"learning_rate={value!r}: {type(self).__name__} has learned rates by now; assign "
                "to its variables, or make a new learner."
            )
        self._learning_rate = positive_number("inner learning_rate", value)

    def build_for(self, variables: Sequence, steps: int) -> None:
        """Creates the variables of the rule; by default none.

        Args:
            variables: the Keras variables of the weights that are adapted, in the order in which
                `update` gets their values.
            steps: number of steps that the inner loop takes in training.
        """

    def initial_state(self, weights: Sequence) -> Any:
        """Returns what `update` gets as its state in the first step; by default nothing.

        Args:
            weights: see `update`.

        Returns:
            Tensors `[T, ...]` in any nest of tuples, lists and dictionaries.
        """
        del weights
        return ()

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """Takes one step.

        Read the rule's variables here, by `tf.convert_to_tensor(variable)`: they may be replaced
        from one call to the next.

        Args:
            step: number of the step, from 0, an integer or a scalar tensor. Where a trained
                learner takes more steps than it was trained with, it exceeds those of `build_for`.
            weights: tensors `[T, ...]` of the weights that are adapted.
            gradients: a tensor for each of them, of its shape.
            state: see `initial_state`.

        Returns:
            The new weights, and the state for the next step, both in the form they came in.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no update.")

    def learned_rates(self) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """Yields each weight's name, the step (None for all), and the learned rates there."""
        return iter(())

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"learning_rate": self._learning_rate}
