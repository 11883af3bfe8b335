"""Normalisation by the statistics of each task's own points."""

import tensorflow as tf

from mmaml_tf.layers.points import expand_to, mean_over_points, sums_are_products


def moments(x, axes, keepdims=False):
    """Returns mean and (biased) variance like `tf.nn.moments`, differentiable to second order.

    TensorFlow's stops the gradient of the mean inside the variance, which makes no difference to
    a first derivative and a wrong second one.
    """
    mean = tf.reduce_mean(x, axis=axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axis=axes, keepdims=keepdims)
    return mean if keepdims else tf.squeeze(mean, axes), variance


def batch_normalise(z, statistics_of, epsilon: float = 1e-5):
    """Normalises channels by the statistics of each task's own batch.

    Args:
        z: `[T, N, H, W, C]`.
        statistics_of: `[T, N', H, W, C]`, whose mean and (biased) variance are used; z itself
            for those of the batch at hand.
        epsilon: added to the variance.

    Returns:
        A tensor of z's shape.
    """
    if z.dtype.size < 4:
        # Half a float is too coarse for means of many squares.
        same = statistics_of is z
        whole = tf.cast(z, tf.float32)
        reference = whole if same else tf.cast(statistics_of, tf.float32)
        return tf.cast(batch_normalise(whole, reference, epsilon), z.dtype)
    if not sums_are_products(z.dtype):
        mean, variance = moments(statistics_of, axes=[1, 2, 3], keepdims=True)
        return (z - mean) * tf.math.rsqrt(variance + epsilon)
    mean = mean_over_points(statistics_of)
    variance = mean_over_points(tf.square(statistics_of - expand_to(mean, statistics_of)))
    return (z - expand_to(mean, z)) * expand_to(tf.math.rsqrt(variance + epsilon), z)
