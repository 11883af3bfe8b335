"""Update rules: what one step of the inner loop does to the weights of T tasks.

A rule of one's own is one class, which an `InnerLoop` takes as it is. A line in `UPDATE_RULES`
gives it a name.
"""

from mmaml_tf.update_rules.moments import Adam, Momentum
from mmaml_tf.update_rules.rates import GradientDescent, LayerStepRates, MetaSGD, rate_table
from mmaml_tf.update_rules.update_rule import LEARNING_RATE, UpdateRule

__all__ = [
    "UPDATE_RULES",
    "Adam",
    "GradientDescent",
    "LayerStepRates",
    "MetaSGD",
    "Momentum",
    "UpdateRule",
    "get",
    "rate_table",
]

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
