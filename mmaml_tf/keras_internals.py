"""What the package uses of Keras that has no public name there, all in one place.

Another version may change any of it: what is here was checked against `CHECKED`.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

#: the version of Keras whose inner parts these are
CHECKED = "3.15"


def flat_layers(layer: keras.layers.Layer, include_self: bool = True) -> list:
    """Returns all layers inside a layer, at every depth and in order, each before those inside it.

    Args:
        layer: a layer or a model.
        include_self: whether the layer itself comes first.
    """
    found = {id(layer): layer} if include_self else {}
    # Keras's own recursion turns the order of layers inside a layer around.
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        found |= {id(each): each for each in flat_layers(inner) if id(each) not in found}
    return list(found.values())


def run_on_one_device(model: keras.Model) -> None:
    """Makes Keras's own loops run on one device, whatever strategy the model was made under."""
    model._distribute_strategy = None


def strategy_of(optimizer: keras.optimizers.Optimizer) -> tf.distribute.Strategy:
    """Returns the strategy in whose scope an optimizer was made, or the default one."""
    return optimizer._distribution_strategy


def set_tensorflow_variable(variable: keras.Variable, value: tf.Variable) -> None:
    """Sets the variable of TensorFlow's in which one of Keras's has its value."""
    variable._value = value


def optimized_variables(optimizer: keras.optimizers.Optimizer) -> list:
    """Returns the weights that an optimizer was built for."""
    return optimizer._trainable_variables


def mask_of(tensor):
    """Returns the mask that layers of Keras attached to their output, or None."""
    return getattr(tensor, "_keras_mask", None)


def loss_metric(model: keras.Model) -> keras.metrics.Metric:
    """Returns the mean loss that a compiled model reports as "loss"."""
    return model._loss_tracker


def compiled_metrics(model: keras.Model):
    """Returns the metrics given to `compile`: a metric with `built`, `build`, `metrics`; or None.

    Its `metrics` are there once it is built on targets and predictions.
    """
    return getattr(model, "_compile_metrics", None)


def replace_moments(layer: keras.layers.BatchNormalization, moments: Callable) -> None:
    """Replaces what a batch normalisation takes mean and variance from.

    Args:
        layer: the layer.
        moments: maps (the former function, inputs, mask) to mean and variance.
    """
    former = layer._moments
    layer._moments = lambda inputs, mask: moments(former, inputs, mask)
