"""An encoder of support sets whose points attend to each other, in whatever order they come."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.arguments import whole_number
from mmaml_tf.encoders.points import as_points, points_size
from mmaml_tf.layers.points import sizes_of
from mmaml_tf.seeds import derive_seed


@keras.saving.register_keras_serializable("mmaml_tf")
class AttentionEncoder(keras.layers.Layer):
    """Self-attention over the support points, whose order makes no difference.

    Each point is the concatenation of its x and y. It goes through a linear layer, blocks of
    self-attention among the points, and a linear layer with a ReLU. A learned vector attends to
    the points, and a linear layer makes the embedding of what it gets (the SABs and the PMA of Set
    Transformer; Lee et al. 2019). Kernels start Xavier-uniform, biases at zero.

    Args:
        units: units of every layer, and size E of the embedding.
        layers: number of blocks of self-attention.
        num_heads: heads of each attention, a divisor of units.
        seed: seed of the initialisation.

    Raises:
        ValueError: for numbers less than 1, or units that the heads cannot share.
    """

    def __init__(
        self, units: int = 64, layers: int = 2, num_heads: int = 4, seed: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        self.units = whole_number("units", units)
        self.num_layers = whole_number("layers", layers)
        self.num_heads = whole_number("num_heads", num_heads)
        self.seed = whole_number("seed", seed, None)
        if units % num_heads:
            raise ValueError(
                f"units={units}, num_heads={num_heads}: the first must be a multiple of the second."
            )
        self.first, self.joining, self.last = (self._dense(i) for i in range(3))
        self.blocks = [
            AttentionBlock(units, num_heads, derive_seed(seed, "block", i), dtype=self.dtype_policy)
            for i in range(self.num_layers + 1)
        ]

    def _dense(self, index):
        initializer = keras.initializers.GlorotUniform(
            derive_seed(self.seed, "AttentionEncoder", index)
        )
        return layers.Dense(self.units, initializer, dtype=self.dtype_policy)

    @property
    def embedding_size(self) -> int:
        """Size E of the embedding."""
        return self.units

    def build(self, support_x_shape: Sequence, support_y_shape: Sequence) -> None:
        """Creates the weights for support sets `[T, K, Dx]` and `[T, K, Dy]`.

        Raises:
            ValueError: unless each support point is a vector.
        """
        self.first.build((None, points_size(self, support_x_shape, support_y_shape)))
        for dense in (self.joining, self.last):
            dense.build((None, self.units))
        for block in self.blocks:
            block.build()
        self.asking = self.add_weight(
            shape=(1, self.units),
            initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, "asking")),
            name="asking",
        )
        self.built = True

    def call(self, support_x: tf.Tensor, support_y: tf.Tensor) -> tf.Tensor:
        """Embeds support sets `[T, K, Dx]` and `[T, K, Dy]` as `[T, E]`."""
        z = self.first(as_points(support_x, support_y))
        *blocks, pooling = self.blocks
        for block in blocks:
            z = block(z, z)
        asking = tf.cast(self.asking, z.dtype)
        asking = tf.tile(asking[None], [tf.shape(z)[0], 1, 1])
        return self.last(pooling(asking, tf.nn.relu(self.joining(z)))[:, 0])

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "layers": self.num_layers,
            "num_heads": self.num_heads,
            "seed": self.seed,
        }


class AttentionBlock(keras.layers.Layer):
    """Multihead attention of some vectors to others (the MAB of Set Transformer, eq. 6 and 7).

    H = norm(X + attention(X, Y)), and the block gives norm(H + relu(linear(H))).

    Args:
        units: size of all vectors.
        num_heads: heads, a divisor of units.
        seed: seed of the initialisation.
    """

    def __init__(self, units: int, num_heads: int, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output_of_heads, self.linear = (
            layers.Dense(
                units,
                keras.initializers.GlorotUniform(derive_seed(seed, part)),
                dtype=self.dtype_policy,
            )
            for part in ("query", "key", "value", "output", "linear")
        )
        self.norms = [keras.layers.LayerNormalization(dtype=self.dtype_policy) for _ in range(2)]
        self.units = units

    def build(self, *shapes) -> None:
        """Creates the weights, which are the same whatever the numbers of vectors."""
        del shapes
        parts = self.query, self.key, self.value, self.output_of_heads, self.linear, *self.norms
        for part in parts:
            part.build((None, None, self.units))
        self.built = True

    def call(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Maps vectors `[T, N, units]` that attend to `[T, K, units]` to `[T, N, units]`."""
        queries, keys, values = (
            self._by_head(part(z)) for part, z in ((self.query, x), (self.key, y), (self.value, y))
        )
        scale = (self.units // self.num_heads) ** -0.5
        attention = tf.nn.softmax(tf.matmul(queries * scale, keys, transpose_b=True))
        attended = tf.transpose(tf.matmul(attention, values), [0, 2, 1, 3])
        tasks, count = sizes_of(attended)[:2]
        attended = tf.reshape(attended, [tasks, count, self.units])
        z = self.norms[0](x + self.output_of_heads(attended))
        return self.norms[1](z + tf.nn.relu(self.linear(z)))

    def _by_head(self, z):
        """Returns `[T, heads, N, units / heads]`."""
        tasks, count, units = sizes_of(z)
        z = tf.reshape(z, [tasks, count, self.num_heads, units // self.num_heads])
        return tf.transpose(z, [0, 2, 1, 3])
