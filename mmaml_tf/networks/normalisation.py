"""Keras's normalisation layers inside a task network: whose statistics, and exact derivatives.

TensorFlow's `tf.nn.moments`, which these layers use, stops the gradient of the mean inside the
variance. That makes no difference to a first derivative and a wrong second one. A layer that is
`prepared` computes the same values with exact derivatives while `using` is active in the same
thread, and is Keras's own everywhere else.
"""

import contextlib
import contextvars
import functools
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.keras_internals import replace_moments


class Statistics(NamedTuple):
    """Which statistics batch normalisation uses.

    Attributes:
        of_batch: those of the batch at hand, or else the moving averages.
        reference: number K of leading points that the statistics are of; None for all.
        points: number of all points.
        seen: a list to which each batch normalisation adds how many numbers it averages, or None.
    """

    of_batch: bool = True
    reference: Any = None
    points: Any = None
    seen: list | None = None


_statistics = contextvars.ContextVar("statistics", default=None)


@contextlib.contextmanager
def using(statistics: Statistics):
    """While active, prepared layers use these statistics; in this thread alone.

    Args:
        statistics: whose.
    """
    token = _statistics.set(statistics)
    try:
        yield
    finally:
        _statistics.reset(token)


def prepare(layer: keras.layers.Layer) -> None:
    """Makes a layer of Keras obey `using`; other layers stay as they are."""
    if "call" in vars(layer):  # prepared before
        return
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.call = functools.partial(_batch, layer, layer.call)
        replace_moments(layer, functools.partial(_moments, layer))
    elif isinstance(layer, keras.layers.GroupNormalization):
        layer.call = functools.partial(_centred, layer.call, functools.partial(_of_groups, layer))
    elif isinstance(layer, keras.layers.LayerNormalization) and not layer.rms_scaling:
        layer.call = functools.partial(_centred, layer.call, functools.partial(_of_axes, layer))


def _batch(layer, call, inputs, training=None, mask=None):
    statistics = _statistics.get()
    if statistics is not None:
        training = statistics.of_batch
        if statistics.seen is not None:
            statistics.seen.append(tf.size(inputs) // inputs.shape[layer.axis])
        if training and statistics.reference is not None and mask is not None:
            raise ValueError(
                "batch normalisation of masked inputs cannot use the statistics of the support "
                'set; use statistics="query" or "moving".'
            )
    return call(inputs, training=training, mask=mask)


def _moments(layer, moments, inputs, mask):
    """Returns mean and variance, of the leading points alone where those are asked for."""
    statistics = _statistics.get()
    if statistics is None or mask is not None:
        return moments(inputs, mask)
    if statistics.reference is not None:
        # A layer may see several rows for each point, as one on time steps does.
        rows = inputs.shape[0] or tf.shape(inputs)[0]
        inputs = inputs[: statistics.reference * (rows // statistics.points)]
    axes = [axis for axis in range(inputs.shape.rank) if axis != layer.axis % inputs.shape.rank]
    return layers.moments(inputs, axes)


def _centred(call, mean, inputs):
    """Normalises what has been centred, which changes the derivatives and not the result.

    Where the mean is zero, the derivative that `tf.nn.moments` leaves out is zero too.
    """
    if _statistics.get() is None:
        return call(inputs)
    whole = tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)
    return call(whole - mean(whole))


def _of_axes(layer, x):
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return tf.reduce_mean(x, axis=list(axes), keepdims=True)


def _of_groups(layer, x):
    """Returns each group's mean, in the shape of x."""
    axis = layer.axis % x.shape.rank
    last = tf.experimental.numpy.moveaxis(x, axis, -1)
    shape = tf.shape(last)
    split = tf.concat([shape[:-1], [layer.groups, shape[-1] // layer.groups]], axis=0)
    grouped = tf.reshape(last, split)
    axes = [*range(1, x.shape.rank - 1), x.shape.rank]
    means = tf.reduce_mean(grouped, axis=axes, keepdims=True)
    means = tf.reshape(tf.broadcast_to(means, split), shape)
    return tf.experimental.numpy.moveaxis(means, -1, axis)
