"""Layers whose weights may carry a leading task axis.

One layer serves the shared initialisation (`[in, out]`) and the adapted weights of T tasks
(`[T, in, out]`): the rank of the weight decides.
"""

from mmaml_tf.layers.convolution import CONVOLUTION_FORMS, Conv2D, conv2d
from mmaml_tf.layers.dense import Dense, dense
from mmaml_tf.layers.normalisation import batch_normalise, moments
from mmaml_tf.layers.points import expand_to
from mmaml_tf.layers.pooling import max_pool
from mmaml_tf.layers.xla import compiled_by_xla

__all__ = [
    "CONVOLUTION_FORMS",
    "Conv2D",
    "Dense",
    "batch_normalise",
    "compiled_by_xla",
    "conv2d",
    "dense",
    "expand_to",
    "max_pool",
    "moments",
]
