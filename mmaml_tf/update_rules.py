"""Update rules: what one step of the inner loop does to the weights of T tasks.

A rule of one's own is one class, which an `InnerLoop` takes as it is. A line in `UPDATE_RULES`
gives it a name.
"""

import math
import numbers
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


@keras.saving.register_keras_serializable("mmaml_tf")
class GradientDescent(UpdateRule):
    """w - α·g with one fixed rate α (Finn et al. 2017, eq. 1).

    Args:
        learning_rate: α.
        **kwargs: see `UpdateRule`.
    """

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """See `UpdateRule.update`."""
        del step
        return [w - self.learning_rate * g for w, g in zip(weights, gradients, strict=True)], state


@keras.saving.register_keras_serializable("mmaml_tf")
class MetaSGD(UpdateRule):
    """w - α∘g with a learned rate for each element of each weight (Li et al. 2017, eq. 3).

    The published rates start from random numbers between 0.005 and 0.1, these from one number.
    Rates may become negative.

    Args:
        learning_rate: what all rates start from.
        **kwargs: see `UpdateRule`.
    """

    def build_for(self, variables: Sequence, steps: int | None) -> None:
        """Creates a rate for each element."""
        del steps
        self._names = [v.path for v in variables]
        self.rates = [_rates(self, v.shape, v, f"rate_{i}") for i, v in enumerate(variables)]

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """See `UpdateRule.update`."""
        del step
        rates = [tf.convert_to_tensor(rate) for rate in self.rates]
        parts = zip(weights, rates, gradients, strict=True)
        return [w - rate * g for w, rate, g in parts], state

    def learned_rates(self) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """See `UpdateRule.learned_rates`; the rates of all steps are the same."""
        for name, rate in zip(self._names, self.rates, strict=True):
            yield name, None, rate.numpy()


@keras.saving.register_keras_serializable("mmaml_tf")
class LayerStepRates(UpdateRule):
    """w - α·g with a learned rate α for each weight tensor and step.

    These are the per-layer per-step learning rates of MAML++ (Antoniou et al. 2019, section 4).
    Steps beyond those of training use the rates of the last one. Rates may become negative.

    Args:
        learning_rate: what all rates start from.
        **kwargs: see `UpdateRule`.
    """

    def build_for(self, variables: Sequence, steps: int | None) -> None:
        """Creates the rates `[V, steps]` of V weight tensors."""
        self._names = [v.path for v in variables]
        self.rates = _rates(self, (len(variables), steps), next(iter(variables), None), "rates")

    def update(
        self, step: int | tf.Tensor, weights: Sequence, gradients: Sequence, state: Any
    ) -> tuple[list, Any]:
        """See `UpdateRule.update`."""
        last = self.rates.shape[1] - 1
        rates = tf.gather(tf.convert_to_tensor(self.rates), tf.minimum(step, last), axis=1)
        parts = zip(weights, tf.unstack(rates), gradients, strict=True)
        return [w - rate * g for w, rate, g in parts], state

    def learned_rates(self) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """See `UpdateRule.learned_rates`."""
        for name, rates in zip(self._names, self.rates.numpy(), strict=True):
            for step, rate in enumerate(rates):
                yield name, step, rate


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


#: the update rules that have a name
UPDATE_RULES = {
    "gradient_descent": GradientDescent,
    "meta_sgd": MetaSGD,
    "layer_step_rates": LayerStepRates,
    "momentum": Momentum,
    "adam": Adam,
}


def get(update: str | UpdateRule | None, learning_rate: float | None = None) -> UpdateRule:
    """Returns an update rule.

    Args:
        update: an `UpdateRule`, a name of `UPDATE_RULES`, or None for gradient descent.
        learning_rate: that of a rule that is made here; None for 0.001.

    Raises:
        ValueError: for an unknown name or another type, or a learning rate beside a rule that has
            its own.
    """
    if isinstance(update, UpdateRule):
        if learning_rate is not None:
            raise ValueError(
                f"learning_rate={learning_rate!r} is given beside an update rule that has its own; "
                f"give it as {type(update).__name__}(learning_rate={learning_rate!r})."
            )
        return update
    kind = GradientDescent if update is None else None
    if isinstance(update, str):
        kind = UPDATE_RULES.get(update)
    if kind is None:
        raise ValueError(
            f"unknown update rule {update!r}; expected one of {sorted(UPDATE_RULES)} or a "
            "mmaml_tf.update_rules.UpdateRule."
        )
    return kind(LEARNING_RATE if learning_rate is None else learning_rate)


def rate_table(learner: keras.Model) -> list[dict]:
    """Returns the learned rates of a learner's inner loop, one row for each weight and step.

    Args:
        learner: a built learner.

    Returns:
        Rows with "mode" (None unless each mode has its own rates), "variable", "step" (None where
        all steps have the same rates), and the "mean", "min" and "max" over the weight's elements;
        none for a rule that learns no rates. `pandas.DataFrame` takes them as they are.
    """
    rules = learner.inner_loop.rules
    modes = learner.modes if len(rules) > 1 else [None]
    rows = []
    for mode, rule in zip(modes, rules, strict=True):
        for variable, step, rates in rule.learned_rates() if rule.built else ():
            statistics = {name: float(getattr(np, name)(rates)) for name in ("mean", "min", "max")}
            rows.append({"mode": mode, "variable": variable, "step": step, **statistics})
    return rows


def _rates(rule, shape, like, name):
    """Returns new learned rates of a shape, in the type of the weights they are for."""
    return rule.add_weight(
        shape=shape,
        dtype=None if like is None else like.dtype,
        initializer=keras.initializers.Constant(rule.learning_rate),
        name=name,
    )


def _fraction(name, value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and 0 < value < 1):
        raise ValueError(f"{name}={value!r}: expected a number between 0 and 1.")
    return float(value)
