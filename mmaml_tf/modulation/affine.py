"""The modulations of the MMAML paper, affine maps of the pre-activations."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf.arguments import flag
from mmaml_tf.modulation.block import Affine, BlockModulation
from mmaml_tf.modulation.modulation import Modulation


@keras.saving.register_keras_serializable("mmaml_tf")
class FiLM(Modulation):
    """z·(1 + γ) + β (Perez et al. 2018; the best of the MMAML paper's modulations).

    Args:
        shift: whether β is used; without it the modulation only scales (the published RL form).
        **kwargs: see `Modulation`.
    """

    def __init__(self, shift: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.shift = flag("shift", shift)

    def shapes(self, kernel: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Returns those of γ and β, or of γ alone."""
        return [kernel[-1:]] * (2 if self.shift else 1)

    def change(self, gamma: tf.Tensor, beta: tf.Tensor | None = None) -> BlockModulation:
        """Returns z·(1 + γ) + β."""
        return Affine(1.0 + gamma, beta)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"shift": self.shift}


@keras.saving.register_keras_serializable("mmaml_tf")
class SigmoidGate(Modulation):
    """z·sigmoid(e), one gate per unit."""

    def shapes(self, kernel: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Returns that of e."""
        return [kernel[-1:]]

    def change(self, gates: tf.Tensor) -> BlockModulation:
        """Returns z·sigmoid(e)."""
        return Affine(tf.sigmoid(gates))


@keras.saving.register_keras_serializable("mmaml_tf")
class SoftmaxGate(Modulation):
    """z·softmax(e) over the units of a block, not rescaled by their number, as published."""

    def shapes(self, kernel: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Returns that of e."""
        return [kernel[-1:]]

    def change(self, gates: tf.Tensor) -> BlockModulation:
        """Returns z·softmax(e)."""
        return Affine(tf.nn.softmax(gates, axis=-1))
