"""What encoders of vectors take: each support point is the concatenation of its x and y."""

from collections.abc import Sequence

import tensorflow as tf


def points_size(encoder, support_x_shape: Sequence, support_y_shape: Sequence) -> int:
    """Returns the size of a point of support sets `[T, K, Dx]` and `[T, K, Dy]`.

    Args:
        encoder: the layer that takes them, for the message.
        support_x_shape: shape of the inputs.
        support_y_shape: shape of the targets.

    Raises:
        ValueError: unless each support point is a vector.
    """
    for name, shape in (("support_x", support_x_shape), ("support_y", support_y_shape)):
        if len(shape) != 3 or shape[-1] is None:
            raise ValueError(
                f"{type(encoder).__name__} takes {name} of shape [T, K, features], got "
                f"{tuple(shape)}. Use another encoder for these tasks."
            )
    return support_x_shape[-1] + support_y_shape[-1]


def as_points(support_x: tf.Tensor, support_y: tf.Tensor) -> tf.Tensor:
    """Returns points `[T, K, Dx + Dy]`."""
    return tf.concat([support_x, tf.cast(support_y, support_x.dtype)], axis=-1)
