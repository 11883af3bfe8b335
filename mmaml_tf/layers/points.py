"""What holds for all points of a task: sums and means over them, and values repeated to them.

Points are those of images, too: every axis between that of tasks and that of channels.
"""

import math

import tensorflow as tf

from mmaml_tf.division import on_gpu
from mmaml_tf.layers.xla import is_compiled_by_xla


def expand_to(per_task, like):
    """Makes `[T, C]` broadcast against `like`, `[T, ..., C]`."""
    if like.shape.rank > 3 and sums_are_products(like.dtype):
        sizes, one = sizes_of(like), tf.ones([], like.dtype)
        return tf.reshape(_to_points(per_task, math.prod(sizes[1:-1]), one), sizes)
    ones = [1] * (like.shape.rank - 2)
    return tf.reshape(per_task, [-1, *ones, per_task.shape[-1]])


def sums_are_products(dtype):
    """Whether sums over the many points of images are products with ones.

    On a CPU, XLA's own reductions take a multiple of the time and round more. On a GPU products
    may round to fewer bits than the type has, and everywhere those of types of less than 32 bits.
    """
    return is_compiled_by_xla() and not on_gpu() and dtype.size >= 4


def sizes_of(x):
    """Returns the sizes of x's axes: numbers, or scalar tensors where they are not known yet."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]


def _over_points(x, scale):
    """Returns scale times the sum over M of `[T, M, C]`, `[T, C]`."""
    tasks, points, _ = sizes_of(x)

    @tf.custom_gradient
    def add(x):
        # Two equal rows: a product with one is done by an algorithm that is slower and rounds more.
        sums = tf.matmul(tf.fill([tasks, 2, points], scale), x)[:, 0]
        return sums, lambda gradient: _to_points(gradient, points, scale)

    return add(x)


def _to_points(per_task, points, scale):
    """Returns scale times `[T, C]`, repeated to `[T, M, C]`."""
    tasks, channels = sizes_of(per_task)

    @tf.custom_gradient
    def repeat(per_task):
        repeated = tf.broadcast_to(scale * per_task[:, None], [tasks, points, channels])
        return repeated, lambda gradient: _over_points(gradient, scale)

    return repeat(per_task)


def mean_over_points(x):
    """Returns `[T, C]`, the means of `[T, ..., C]`."""
    tasks, *points, channels = sizes_of(x)
    points = math.prod(points)
    scale = 1 / tf.cast(points, x.dtype)
    return _over_points(tf.reshape(x, [tasks, points, channels]), scale)
