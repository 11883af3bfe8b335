"""Kernel modulation: every weight of a block has a factor of its own."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from mmaml_tf.modulation.block import BlockModulation, KernelProduct
from mmaml_tf.modulation.modulation import Modulation


@keras.saving.register_keras_serializable("mmaml_tf")
class KML(Modulation):
    """Kernel modulation: kernel·(1 + u vᵀ) and bias + Δb (Abdollahzadeh et al. 2021).

    u has a number for each weight that a unit has (`in`, or `h·w·in` of a convolution), v and Δb
    one for each unit. A network whose blocks have no bias adds Δb where FiLM adds its shift.

    The heads of v and Δb start at zero and that of u as in `Modulation`. The modulated network is
    then the unmodulated one at first, and v has a gradient at once: the start of the low-rank
    products of Hu et al. (2021, section 4.1). The published initialisation is not known here.
    """

    def shapes(self, kernel: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Returns those of u, v and Δb."""
        ones = (1,) * (len(kernel) - 1)
        return (*kernel[:-1], 1), (*ones, kernel[-1]), kernel[-1:]

    def change(self, rows: tf.Tensor, columns: tf.Tensor, shift: tf.Tensor) -> BlockModulation:
        """Returns kernel·(1 + u vᵀ) and bias + Δb."""
        return KernelProduct(rows, columns, shift)

    def head_initializers(self, embedding_size: int, block: int) -> Sequence[Callable]:
        """See `Modulation`; what v and Δb come from is zero."""
        random = math.prod(self.kernels[block][:-1])
        both = super().head_initializers(embedding_size, block)
        return [_zero_after(random, initializer) for initializer in both]


def _zero_after(count, initializer):
    """Returns an initializer whose values are those of another, and zero from an output on."""

    def initial(shape, dtype=None):
        values = initializer(shape, dtype=dtype)
        return tf.where(tf.range(shape[-1]) < count, values, tf.zeros_like(values))

    return initial
