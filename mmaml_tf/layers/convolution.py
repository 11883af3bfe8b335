"""Convolutions with shared or per-task kernels."""

import functools
import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf.layers.points import sizes_of
from mmaml_tf.layers.xla import is_compiled_by_xla
from mmaml_tf.names import checked

#: the forms of a convolution with one kernel per task
CONVOLUTION_FORMS = ("auto", "patches", "looped", "grouped")


@checked(stride="strides")
def conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: int = 2, form: str = "auto") -> tf.Tensor:
    """Convolves images with shared or per-task kernels, zero-padded by half the kernel's size.

    The padding is symmetric, unlike that of Keras's "same" with strides.

    Args:
        x: `[T, N, H, W, in]`.
        kernel: `[h, w, in, out]` with odd h and w, or `[T, h, w, in, out]` for one per task.
        strides: step of the kernel, in both directions.
        form: how kernels are applied, with equal results: "patches" gathers what each position
            of a kernel sees and multiplies matrices; "looped" convolves one task after the
            other; "grouped" is one convolution in which every task is a group of channels, whose
            gradient TensorFlow does not have everywhere. "auto" takes the fastest that there is:
            "patches" under XLA, whose own convolutions are many times slower to second order on
            a CPU, elsewhere "grouped", or "looped" where that has no gradient or T is unknown.

    Returns:
        `[T, N, H', W', out]`, H' and W' being H and W over the strides, rounded up.

    Raises:
        ValueError: for an unknown form.
    """
    if form not in CONVOLUTION_FORMS:
        raise ValueError(f"form is {form!r}; expected one of {CONVOLUTION_FORMS}.")
    if form == "auto":
        with tf.init_scope():
            grouped = x.shape[0] is not None and _has_grouped_gradient(x.dtype)
        form = "patches" if is_compiled_by_xla() else "grouped" if grouped else "looped"
    per_task = kernel.shape.rank == 5
    height, width, size_in, size_out = kernel.shape[-4:]
    tasks, points = sizes_of(x)[:2]
    if form == "patches":
        patches = _patches(x, height, width, strides)
        rows, columns = patches.shape[2:4]
        kernels = tf.reshape(kernel, [-1, height * width * size_in, size_out])
        flat = tf.reshape(patches, [tasks, points * rows * columns, kernels.shape[1]])
        z = tf.matmul(flat, kernels if per_task else kernels[0])
        return tf.reshape(z, [tasks, points, rows, columns, size_out])
    margin = [[(size - 1) // 2] * 2 for size in (height, width)]
    x = tf.pad(x, [[0, 0], [0, 0], *margin, [0, 0]])
    if not per_task:
        z = tf.nn.conv2d(tf.reshape(x, [-1, *x.shape[2:]]), kernel, strides, "VALID")
        z = tf.reshape(z, [tasks, points, *z.shape[1:]])
    elif form == "looped":

        def one_task(task):
            return tf.nn.conv2d(*task, strides, "VALID")

        if x.shape[0] is None:
            z = tf.map_fn(one_task, (x, kernel), fn_output_signature=x.dtype)
        else:
            each = zip(tf.unstack(x), tf.unstack(kernel), strict=True)
            z = tf.stack([one_task(task) for task in each])
    else:
        stacked = tf.transpose(x, [1, 2, 3, 0, 4])
        stacked = tf.reshape(stacked, [points, *x.shape[2:4], tasks * size_in])
        kernels = tf.transpose(kernel, [1, 2, 3, 0, 4])
        kernels = tf.reshape(kernels, [height, width, size_in, tasks * size_out])
        z = tf.nn.conv2d(stacked, kernels, strides, "VALID")
        z = tf.reshape(z, [points, *z.shape[1:3], tasks, size_out])
        z = tf.transpose(z, [3, 0, 1, 2, 4])
    return z


@functools.cache
def _has_grouped_gradient(dtype):
    """Whether a grouped convolution of this type can be differentiated here.

    On a CPU that takes oneDNN, and float32.
    """
    x, kernel = tf.ones((1, 4, 4, 2), dtype), tf.ones((3, 3, 1, 2), dtype)
    try:
        # By hand, because tapes pause in an init_scope.
        tf.raw_ops.Conv2DBackpropFilter(
            input=x,
            filter_sizes=kernel.shape,
            out_backprop=tf.ones((1, 2, 2, 2), dtype),
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return False
    return True


def _patches(x, height, width, stride):
    """Returns what each position of a kernel sees, `[T, N, H', W', h·w·in]`.

    The padded image is cut into squares of stride × stride pixels, so that a row of a square is
    one piece of memory and every slice is without steps, as are their gradients. The patch
    operation of TensorFlow has a gradient through a sparse matrix.
    """
    tasks, points, _, _, size_in = sizes_of(x)
    pads, counts = [], []
    for axis, size in ((2, height), (3, width)):
        counts.append((x.shape[axis] - 1) // stride + 1)
        before = (size - 1) // 2
        squares = counts[-1] + (size - 1) // stride
        pads.append([before, stride * squares - before - x.shape[axis]])
    # A stride beyond the kernel's size leaves pixels at the end that no position sees.
    x = x[:, :, : x.shape[2] + min(pads[0][1], 0), : x.shape[3] + min(pads[1][1], 0)]
    x = tf.pad(x, [[0, 0], [0, 0], *([before, max(after, 0)] for before, after in pads), [0, 0]])
    (rows, columns), side = counts, stride * size_in
    x = tf.reshape(x, [tasks, points, -1, stride, x.shape[3] // stride, side])
    seen = []
    for i, j in itertools.product(range(height), range(0, width, stride)):
        across = slice(i // stride, i // stride + rows)
        along = slice(j // stride, j // stride + columns)
        seen.append(x[:, :, across, i % stride, along, : size_in * min(stride, width - j)])
    return tf.concat(seen, axis=-1)


@keras.saving.register_keras_serializable("mmaml_tf")
class Conv2D(keras.layers.Layer):
    """A convolution with symmetric padding, without bias; `conv2d` on its own kernel.

    Args:
        filters: channels of the output.
        kernel_size: odd height and width of the kernel.
        kernel_initializer: Keras initializer of the kernel, or its name.
    """

    @checked(initializer="kernel_initializer")
    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        kernel_initializer: keras.initializers.Initializer | str = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Sequence) -> None:
        """Creates the kernel `[h, w, in, filters]`."""
        size = self.kernel_size
        self.kernel = self.add_weight(
            shape=(size, size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[T, N, H, W, in]` to `[T, N, H', W', filters]` with the layer's own kernel."""
        return conv2d(x, tf.convert_to_tensor(self.kernel))

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
