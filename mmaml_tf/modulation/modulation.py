"""What every modulation is: generator heads, and what the tensors they generate do to a block."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from mmaml_tf import initializers
from mmaml_tf.arguments import whole_number, whole_numbers
from mmaml_tf.modulation.block import BlockModulation
from mmaml_tf.names import checked


class Modulation(keras.layers.Layer):
    """Generator heads, one linear layer for each modulated block (MMAML paper, section 4.2).

    A subclass defines `shapes` and `change`.

    Args:
        blocks: indices of the modulated blocks; None for all of them.
        seed: seed of the initialisation.
        kernel_initializer: Keras initializer of the heads' kernels, or its name, for which all
            heads are one layer; None for uniform ones in ±1/sqrt(E), as published for regression
            and classification. The published reinforcement learning has "glorot_uniform".
        bias_initializer: the same of the biases; published for reinforcement learning is "zeros".
    """

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

    def shapes(self, kernel: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Returns the shapes of the tensors that the head of a block generates for one task.

        Args:
            kernel: shape of the block's kernel, `[..., in, out]`.
        """
        raise NotImplementedError

    def change(self, *tensors) -> BlockModulation:
        """Returns what generated tensors do to a block.

        Args:
            *tensors: one `[T, *shape]` for each of `shapes`.
        """
        raise NotImplementedError

    def build_for(self, embedding_size: int, kernels: Sequence[tuple[int, ...]]) -> None:
        """Creates the heads for a network.

        Args:
            embedding_size: size E of the task embeddings.
            kernels: shapes of the kernels of the network's blocks, see
                `TaskNetwork.modulated_kernels`.

        Raises:
            ValueError: if the network has no block to modulate, or `blocks` names one that it
                does not have.
        """
        if not kernels:
            raise ValueError("the task network has no block that can be modulated.")
        blocks = range(len(kernels)) if self.blocks is None else self.blocks
        for block in blocks:
            if not 0 <= block < len(kernels):
                raise ValueError(
                    f"modulation block {block} does not exist: the task network has "
                    f"{len(kernels)} modulated blocks, numbered from 0."
                )
        self.kernels = tuple(map(tuple, kernels))
        self._outputs = {block: self._count(self.kernels[block]) for block in blocks}
        for block in blocks:
            kernel, bias = self.head_initializers(embedding_size, block)
            head = keras.layers.Dense(
                self._outputs[block],
                kernel_initializer=kernel,
                bias_initializer=bias,
                name=f"head_{block}",
                dtype=self.dtype_policy,
            )
            head.build((None, embedding_size))
            self.heads[str(block)] = head
        self.built = True

    def _count(self, kernel):
        """Returns the number of outputs of the head of a block."""
        return sum(math.prod(shape) for shape in self.shapes(kernel))

    def head_initializers(self, embedding_size: int, block: int) -> Sequence[Callable]:
        """Returns the initializers of the kernel and the bias of a head.

        Args:
            embedding_size: size E of the task embeddings.
            block: index of the head's block.
        """
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
        of_head, of_all = self._outputs[block], sum(self._outputs.values())
        sizes = (embedding_size, of_head), (embedding_size, of_all)
        return initializers.for_part(kernel, *sizes), bias

    def call(self, embedding: tf.Tensor) -> list[BlockModulation | None]:
        """Maps embeddings `[T, E]` to how each block is changed, None for one that is not."""
        outputs = {int(block): head(embedding) for block, head in self.heads.items()}
        return self._changes(outputs)

    def _changes(self, outputs):
        """Returns how each block is changed by outputs of its head `[T, ...]`, by block."""
        return [
            self.change(*_split(outputs[block], self.shapes(kernel))) if block in outputs else None
            for block, kernel in enumerate(self.kernels)
        ]

    def examples(self, tasks: int, seed: int = 0) -> list[BlockModulation | None]:
        """Returns how some tasks could change each block, whatever the heads' weights are.

        Args:
            tasks: number of tasks T, which all differ.
            seed: seed of the outputs of the heads, which are uniform in ±0.9. No factor 1 + e
                changes a sign.
        """
        return self._changes(
            {
                block: keras.random.uniform(
                    (tasks, size), -0.9, 0.9, self.compute_dtype, seed + block
                )
                for block, size in self._outputs.items()
            }
        )

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "blocks": self.blocks,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _split(outputs, shapes):
    """Returns outputs of a head `[T, ...]` as tensors `[T, *shape]`."""
    parts = tf.split(outputs, [math.prod(shape) for shape in shapes], axis=-1)
    return [
        part if len(shape) == 1 else tf.reshape(part, [-1, *shape])
        for part, shape in zip(parts, shapes, strict=True)
    ]
