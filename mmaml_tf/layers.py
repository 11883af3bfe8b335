"""Layers whose weights may carry a leading task axis.

One layer serves the shared initialisation (`[in, out]`) and the adapted weights of T tasks
(`[T, in, out]`): the rank of the weight decides.
"""

import contextlib
import contextvars
import functools
import itertools
import math

import keras
import tensorflow as tf

from mmaml_tf.division import on_gpu
from mmaml_tf.names import checked

_compiled_by_xla = contextvars.ContextVar("compiled_by_xla", default=False)


@contextlib.contextmanager
def compiled_by_xla(xla: bool):
    """While active, what is traced is compiled by XLA (or is not); some layers choose by it."""
    token = _compiled_by_xla.set(xla)
    try:
        yield
    finally:
        _compiled_by_xla.reset(token)


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
    """Makes `[T, C]` broadcast against `like`, `[T, ..., C]`."""
    if like.shape.rank > 3 and _sums_are_products(like.dtype):
        sizes, one = _sizes(like), tf.ones([], like.dtype)
        return tf.reshape(_to_points(per_task, math.prod(sizes[1:-1]), one), sizes)
    ones = [1] * (like.shape.rank - 2)
    return tf.reshape(per_task, [-1, *ones, per_task.shape[-1]])


def _sums_are_products(dtype):
    """Whether sums over the many points of images are products with ones.

    On a CPU, XLA's own reductions take a multiple of the time and round more. On a GPU products
    may round to fewer bits than the type has, and everywhere those of types of less than 32 bits.
    """
    return _compiled_by_xla.get() and not on_gpu() and dtype.size >= 4


def _sizes(x):
    """Returns the sizes of x's axes: numbers, or scalar tensors where they are not known yet."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]


def _over_points(x, scale):
    """Returns scale times the sum over M of `[T, M, C]`, `[T, C]`."""
    tasks, points, _ = _sizes(x)

    @tf.custom_gradient
    def add(x):
        # Two equal rows: a product with one is done by an algorithm that is slower and rounds more.
        sums = tf.matmul(tf.fill([tasks, 2, points], scale), x)[:, 0]
        return sums, lambda gradient: _to_points(gradient, points, scale)

    return add(x)


def _to_points(per_task, points, scale):
    """Returns scale times `[T, C]`, repeated to `[T, M, C]`."""
    tasks, channels = _sizes(per_task)

    @tf.custom_gradient
    def repeat(per_task):
        repeated = tf.broadcast_to(scale * per_task[:, None], [tasks, points, channels])
        return repeated, lambda gradient: _over_points(gradient, scale)

    return repeat(per_task)


#: the forms of a convolution with one kernel per task
CONVOLUTION_FORMS = ("auto", "patches", "looped", "grouped")


@checked(stride="strides")
def conv2d(x, kernel, strides: int = 2, form: str = "auto"):
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
        form = "patches" if _compiled_by_xla.get() else "grouped" if grouped else "looped"
    per_task = kernel.shape.rank == 5
    height, width, size_in, size_out = kernel.shape[-4:]
    tasks, points = _sizes(x)[:2]
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
    tasks, points, _, _, size_in = _sizes(x)
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
    if not _sums_are_products(z.dtype):
        mean, variance = moments(statistics_of, axes=[1, 2, 3], keepdims=True)
        return (z - mean) * tf.math.rsqrt(variance + epsilon)
    mean = _mean_over_points(statistics_of)
    variance = _mean_over_points(tf.square(statistics_of - expand_to(mean, statistics_of)))
    return (z - expand_to(mean, z)) * expand_to(tf.math.rsqrt(variance + epsilon), z)


def _mean_over_points(x):
    """Returns `[T, C]`, the means of `[T, ..., C]`."""
    tasks, *points, channels = _sizes(x)
    points = math.prod(points)
    scale = 1 / tf.cast(points, x.dtype)
    return _over_points(tf.reshape(x, [tasks, points, channels]), scale)


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
        self, units: int, kernel_initializer="glorot_uniform", bias_initializer="zeros", **kwargs
    ):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        """Creates the kernel `[in, units]` and the bias `[units]`."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.kernel_initializer, name="kernel"
        )
        self.bias = self.add_weight(
            shape=(self.units,), initializer=self.bias_initializer, name="bias"
        )

    def call(self, x):
        """Maps `[..., in]` to `[..., units]` with the layer's own weights."""
        return dense(x, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


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
        self, filters: int, kernel_size: int = 3, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        """Creates the kernel `[h, w, in, filters]`."""
        size = self.kernel_size
        self.kernel = self.add_weight(
            shape=(size, size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    def call(self, x):
        """Maps `[T, N, H, W, in]` to `[T, N, H', W', filters]` with the layer's own kernel."""
        return conv2d(x, tf.convert_to_tensor(self.kernel))

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
