"""Modulations for the tests: NumPy oracles, and modulations of a user's own."""

from typing import Any, NamedTuple

import keras
import numpy as np

import mmaml_tf as mm


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _kml(e, kernel):
    rows = np.prod(kernel[:-1], dtype=int)
    u, v, shift = e[:rows], e[rows : rows + kernel[-1]], e[rows + kernel[-1] :]
    return 1 + np.outer(u, v).reshape(kernel), 1.0, shift


#: maps a head's outputs for one task and the kernel's shape to (factor of the kernel, scale, shift)
ORACLES = {
    "film": lambda e, kernel: (1.0, 1 + e[: kernel[-1]], e[kernel[-1] :]),
    "sigmoid": lambda e, kernel: (1.0, sigmoid(e), 0.0),
    "softmax": lambda e, kernel: (1.0, softmax(e), 0.0),
    "kml": _kml,
}


def of_task(modulation, name, embedding, block):
    """(factor, scale, shift) of a block for one task's embedding `[E]`, by NumPy."""
    head = modulation.heads.get(str(block))
    if head is None:
        return 1.0, 1.0, 0.0
    outputs = embedding @ head.kernel.numpy() + head.bias.numpy()
    return ORACLES[name](outputs, modulation.kernels[block])


def randomise(modulation, scale=0.5, seed=0):
    """Gives the heads of a built modulation random weights: some change nothing at first."""
    rng = np.random.default_rng(seed)
    for variable in modulation.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape))
    return modulation


class Added(NamedTuple):
    """Something generated joins the kernel: a change that no supplied modulation makes."""

    kernels: Any

    def kernel(self, kernel):
        return kernel + self.kernels

    def pre_activations(self, z):
        return z

    def fold(self, kernel, bias):
        return self.kernel(kernel), bias


@keras.saving.register_keras_serializable("tests")
class AddedKernel(mm.modulation.Modulation):
    """A user's own modulation with a change of its own."""

    def shapes(self, kernel):
        return [kernel]

    def change(self, kernels):
        return Added(kernels)
