"""Linear layers with shared or per-task weights."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf.layers.points import expand_to
from mmaml_tf.names import checked


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Computes x·kernel + bias with shared or per-task weights.

    Args:
        x: `[T, N, in]`; with shared weights any rank of at least 2.
        kernel: `[in, out]`, or `[T, in, out]` for one kernel per task.
        bias: `[out]`, `[T, out]` or None.

    Returns:
        `[T, N, out]`.
    """
    if kernel.shape.rank == 2:
        z = tf.matmul(x, kernel)
    elif kernel.shape[-2] == 1:
        # A batched product with inner size 1 is an outer product: cheaper as a broadcast.
        z = x * kernel
    elif kernel.shape[-1] == 1:
        z = tf.reduce_sum(x * tf.linalg.matrix_transpose(kernel), axis=-1, keepdims=True)
    else:
        z = tf.matmul(x, kernel)
    if bias is None:
        return z
    return z + (expand_to(bias, z) if bias.shape.rank == 2 else bias)


@keras.saving.register_keras_serializable("mmaml_tf")
class Dense(keras.layers.Layer):
    """A linear layer that runs on its own weights or on weights given by the caller.

    Args:
        units: size of the output.
        kernel_initializer: Keras initializer of the kernel, or its name.
        bias_initializer: the same of the bias.
    """

    @checked(initializer="kernel_initializer")
    def __init__(
        self,
        units: int,
        kernel_initializer: keras.initializers.Initializer | str = "glorot_uniform",
        bias_initializer: keras.initializers.Initializer | str = "zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: Sequence) -> None:
        """Creates the kernel `[in, units]` and the bias `[units]`."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.kernel_initializer, name="kernel"
        )
        self.bias = self.add_weight(
            shape=(self.units,), initializer=self.bias_initializer, name="bias"
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[..., in]` to `[..., units]` with the layer's own weights."""
        return dense(x, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
