"""Modulation: task embedding -> one affine map per block of the task network.

Every published modulation is an affine map of a block's pre-activations, z·scale + shift, with
one scale and shift per unit or channel. They differ only in how scale and shift are made from
what the generator heads give out, and that is all a subclass defines.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import initializers
from mmaml_tf.arguments import flag, whole_number, whole_numbers
from mmaml_tf.names import checked


class Modulation(keras.layers.Layer):
    """Generator heads, one linear layer per modulated block (MMAML paper, section 4.2).

    Args:
        blocks: indices of the modulated blocks; None for all of them.
        seed: seed of the initialisation.
        kernel_initializer: Keras initializer of the heads' kernels, or its name, for which all
            heads are one layer; None for uniform ones in ±1/sqrt(E), as published for regression
            and classification. The published reinforcement learning has "glorot_uniform".
        bias_initializer: the same of the biases; published for reinforcement learning is "zeros".
    """

    #: outputs of a generator head per unit of its block
    outputs_per_unit = 1

    @checked(xavier='kernel_initializer="glorot_uniform", bias_initializer="zeros"')
    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        seed: int = 0,
        kernel_initializer: keras.initializers.Initializer | str | None = None,
        bias_initializer: keras.initializers.Initializer | str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.blocks = None if blocks is None else whole_numbers("blocks", blocks, 0)
        if self.blocks and len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"blocks={blocks!r} names a block twice.")
        self.seed = whole_number("seed", seed, None)
        self.kernel_initializer = initializers.get("kernel_initializer", kernel_initializer)
        self.bias_initializer = initializers.get("bias_initializer", bias_initializer)
        self.heads = {}

    def build_for(self, embedding_size: int, widths: Sequence[int]) -> None:
        """Creates the heads for a network whose modulated blocks have these widths.

        Raises:
            ValueError: if the network has no block to modulate, or `blocks` names one that it
                does not have.
        """
        if not widths:
            raise ValueError("the task network has no block that can be modulated.")
        self.widths = tuple(widths)
        blocks = range(len(widths)) if self.blocks is None else self.blocks
        for block in blocks:
            if not 0 <= block < len(widths):
                raise ValueError(
                    f"modulation block {block} does not exist: the task network has "
                    f"{len(widths)} modulated blocks, numbered from 0."
                )
        for block in blocks:
            kernel, bias = self._initializers(embedding_size, block)
            head = keras.layers.Dense(
                self.outputs_per_unit * widths[block],
                kernel_initializer=kernel,
                bias_initializer=bias,
                name=f"head_{block}",
                dtype=self.dtype_policy,
            )
            head.build((None, embedding_size))
            self.heads[str(block)] = head
        self.built = True

    def _initializers(self, embedding_size, block):
        """Returns those of a head's kernel and bias."""
        bound = embedding_size**-0.5
        published = keras.initializers.RandomUniform(-bound, bound)
        kernel, bias = (
            initializers.for_layer(
                published if chosen is None else chosen,
                self.seed,
                type(self).__name__,
                block,
                part,
            )
            for part, chosen in (
                ("kernel", self.kernel_initializer),
                ("bias", self.bias_initializer),
            )
        )
        blocks = range(len(self.widths)) if self.blocks is None else self.blocks
        of_head, of_all = (
            self.outputs_per_unit * sum(self.widths[b] for b in part) for part in ([block], blocks)
        )
        sizes = (embedding_size, of_head), (embedding_size, of_all)
        return initializers.for_part(kernel, *sizes), bias

    def call(self, embedding):
        """Maps embeddings `[T, E]` to one `(scale, shift)` or None per block.

        Scale is `[T, width]`; shift is `[T, width]` or None.
        """
        return [
            self.affine(self.heads[str(block)](embedding)) if str(block) in self.heads else None
            for block in range(len(self.widths))
        ]

    def affine(self, outputs):
        """Turns a head's outputs `[T, outputs_per_unit·width]` into `(scale, shift)`."""
        raise NotImplementedError

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "blocks": self.blocks,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


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

    @property
    def outputs_per_unit(self):
        """Two outputs per unit, γ first, or γ alone."""
        return 2 if self.shift else 1

    def affine(self, outputs):
        """Returns (1 + γ, β)."""
        if not self.shift:
            return 1.0 + outputs, None
        gamma, beta = tf.split(outputs, 2, axis=-1)
        return 1.0 + gamma, beta

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {"shift": self.shift}


@keras.saving.register_keras_serializable("mmaml_tf")
class SigmoidGate(Modulation):
    """z·sigmoid(e), one gate per unit."""

    def affine(self, outputs):
        """Returns (sigmoid(e), None)."""
        return tf.sigmoid(outputs), None


@keras.saving.register_keras_serializable("mmaml_tf")
class SoftmaxGate(Modulation):
    """z·softmax(e) over the units of a block, not rescaled by their number, as published."""

    def affine(self, outputs):
        """Returns (softmax(e), None)."""
        return tf.nn.softmax(outputs, axis=-1), None


#: the modulations that have a name
MODULATIONS = {"film": FiLM, "sigmoid": SigmoidGate, "softmax": SoftmaxGate}


def get(modulation: str | Modulation) -> Modulation:
    """Returns a modulation for a name of `MODULATIONS` or a `Modulation`.

    Raises:
        ValueError: for an unknown name or another type.
    """
    if isinstance(modulation, Modulation):
        return modulation
    if isinstance(modulation, str) and modulation in MODULATIONS:
        return MODULATIONS[modulation]()
    raise ValueError(
        f"unknown modulation {modulation!r}; expected one of {sorted(MODULATIONS)} or a "
        "mmaml_tf.modulation.Modulation."
    )
