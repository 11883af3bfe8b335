"""Layers whose weights may carry a leading task axis.

One layer serves the shared initialisation (`[in, out]`) and the adapted weights of T tasks
(`[T, in, out]`): the rank of the weight decides.
"""

import keras
import numpy as np
import tensorflow as tf


def derive_seed(*path: int) -> int:
    """Returns a seed that is a function of every number in `path` (for example seed, layer)."""
    return int(np.random.SeedSequence(path).generate_state(1)[0] >> 1)


def dense(x, kernel, bias=None):
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


def expand_to(per_task, like):
    """Reshapes `[T, C]` to `[T, 1, ..., 1, C]` so that it broadcasts against `like`."""
    ones = [1] * (like.shape.rank - 2)
    return tf.reshape(per_task, [-1, *ones, per_task.shape[-1]])


def modulate(z, affine):
    """Applies one block's modulation to pre-activations: z·scale + shift.

    Args:
        z: `[T, N, ..., C]` pre-activations.
        affine: `(scale [T, C], shift [T, C] or None)`, or None to leave z unchanged.

    Returns:
        A tensor of z's shape.
    """
    if affine is None:
        return z
    scale, shift = affine
    z = z * expand_to(scale, z)
    return z if shift is None else z + expand_to(shift, z)


@keras.saving.register_keras_serializable("mmaml_tf")
class Dense(keras.layers.Layer):
    """A linear layer that runs on its own weights or on weights given by the caller.

    Args:
        units: size of the output.
        stddev: standard deviation of the normal kernel initialisation; biases start at 0.
        seed: seed of the initialisation.
    """

    def __init__(self, units: int, stddev: float = 0.01, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.stddev = stddev
        self.seed = seed

    def build(self, input_shape):
        """Creates the kernel `[in, units]` and the bias `[units]`."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev, seed=self.seed),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x):
        """Maps `[..., in]` to `[..., units]` with the layer's own weights."""
        return dense(x, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "stddev": self.stddev,
            "seed": self.seed,
        }
