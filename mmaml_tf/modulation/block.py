"""How one block of a task network is changed: the contract, and the changes that there are."""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from mmaml_tf.layers import expand_to


class BlockModulation(Protocol):
    """How one block of the task network is changed, for T tasks.

    An implementation is a named tuple of tensors `[T, ...]`, or None where there is nothing, so
    that it can pass through graphs, maps over tasks and exported models.
    """

    def kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the kernel that the block uses.

        Args:
            kernel: `[..., in, out]`, or `[T, ..., in, out]` for one kernel a task.
        """

    def pre_activations(self, z: tf.Tensor) -> tf.Tensor:
        """Returns the pre-activations that the block uses, `[T, N, ..., out]` like z.

        Args:
            z: those of the changed kernel. In a block that normalises, the normalised ones.
        """

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns a kernel and a bias with the effect of both other methods.

        A wrapped Keras model, whose pre-activations are out of reach, uses them in place of its
        own weights.

        Args:
            kernel: `[T, ..., in, out]`, or `[1, ..., in, out]` where tasks share it.
            bias: `[T, out]` or `[1, out]`, or None for a layer without bias. The returned bias is
                None where there is none to add.
        """


class Affine(NamedTuple):
    """Pre-activations become z·scale + shift.

    Attributes:
        scale: `[T, out]`.
        shift: `[T, out]`, or None.
    """

    scale: Any
    shift: Any = None

    def kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the kernel as it is."""
        return kernel

    def pre_activations(self, z: tf.Tensor) -> tf.Tensor:
        """Returns z·scale + shift."""
        z = z * expand_to(tf.cast(self.scale, z.dtype), z)
        return z if self.shift is None else z + expand_to(tf.cast(self.shift, z.dtype), z)

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns kernel·scale and bias·scale + shift."""
        scale = tf.cast(self.scale, kernel.dtype)
        shift = None if self.shift is None else tf.cast(self.shift, kernel.dtype)
        ones = [1] * (kernel.shape.rank - 2)
        kernel *= tf.reshape(scale, [-1, *ones, scale.shape[-1]])
        if bias is None:
            return kernel, shift
        return kernel, bias * scale if shift is None else bias * scale + shift


class KernelProduct(NamedTuple):
    """The kernel becomes kernel·(1 + rows·columns), and the shift joins the pre-activations.

    Attributes:
        rows: `[T, ..., in, 1]`, a factor for each weight that a unit of the block has.
        columns: `[T, 1, ..., out]`, a factor for each unit.
        shift: `[T, out]`.
    """

    rows: Any
    columns: Any
    shift: Any

    def kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns kernel·(1 + rows·columns), one kernel for each task."""
        rows, columns = (tf.cast(part, kernel.dtype) for part in (self.rows, self.columns))
        return kernel * (1.0 + rows * columns)

    def pre_activations(self, z: tf.Tensor) -> tf.Tensor:
        """Returns z + shift."""
        return z + expand_to(tf.cast(self.shift, z.dtype), z)

    def fold(self, kernel: tf.Tensor, bias: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns kernel·(1 + rows·columns) and bias + shift."""
        shift = tf.cast(self.shift, kernel.dtype)
        return self.kernel(kernel), shift if bias is None else bias + shift
