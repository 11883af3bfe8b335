"""Pooling with exact derivatives of every order, under every compiler."""

import tensorflow as tf

from mmaml_tf.layers.points import sizes_of


def max_pool(z):
    """Returns the largest value of each 2×2 square; a last odd row or column is left out.

    It compares pairs of values. XLA gets the derivatives of other ways wrong: in TensorFlow's own
    pooling it looks for the maxima again, among values rounded to 16 bits, and a reduction looks
    for the values that equal the maximum, of which there may be none where XLA computes the values
    anew and rounds them in another way. Of equal values one gets the whole gradient.

    Args:
        z: `[T, N, H, W, C]` with H and W of at least 2.

    Returns:
        `[T, N, H // 2, W // 2, C]`.
    """
    tasks, points, height, width, channels = sizes_of(z)
    rows, columns = height // 2, width // 2
    z = z[:, :, : 2 * rows, : 2 * columns]
    z = _larger_of_pairs(tf.reshape(z, [-1, 2, 2 * columns * channels]))
    z = _larger_of_pairs(tf.reshape(z, [-1, 2, channels]))
    return tf.reshape(z, [tasks, points, rows, columns, channels])


def _larger_of_pairs(z):
    """Returns `[M, C]`, the larger one of each pair of `[M, 2, C]`."""
    return tf.maximum(*tf.unstack(z, axis=1))
