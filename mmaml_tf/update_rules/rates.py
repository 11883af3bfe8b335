"""Gradient descent, and the rules that learn its rates."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.update_rules.update_rule import UpdateRule


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
