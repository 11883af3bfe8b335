"""Task encoders: support set -> task embedding `[T, E]`."""

import keras
import tensorflow as tf

from mmaml_tf import layers

# Longer support sets than this run through a while loop instead of an unrolled graph.
_LONGEST_UNROLLED = 32


@keras.saving.register_keras_serializable("mmaml_tf")
class SequenceEncoder(keras.layers.Layer):
    """A bidirectional LSTM over the support points in the order given.

    Each point is the concatenation of its x and y. The embedding joins the top layer's forward
    output at the last point and its backward output at the first point (the published
    regression encoder). Weights start uniform in ±1/sqrt(units).

    Args:
        units: LSTM units per direction; the embedding has `2·units` elements.
        layers: number of stacked bidirectional layers.
        seed: seed of the initialisation.

    Raises:
        ValueError: if units or layers is less than 1.
    """

    def __init__(self, units: int = 40, layers: int = 2, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if units < 1 or layers < 1:
            raise ValueError(f"units is {units}, layers is {layers}; both must be at least 1.")
        self.units = units
        self.num_layers = layers
        self.seed = seed
        self.lstms = [self._bidirectional(index) for index in range(layers)]

    def _bidirectional(self, index):
        def lstm(direction):
            bound = self.units**-0.5
            kernel, recurrent, bias = (
                keras.initializers.RandomUniform(
                    -bound, bound, layers.derive_seed(self.seed, index, direction, part)
                )
                for part in range(3)
            )
            return keras.layers.LSTM(
                self.units,
                return_sequences=index < self.num_layers - 1,
                kernel_initializer=kernel,
                recurrent_initializer=recurrent,
                bias_initializer=bias,
                unit_forget_bias=False,
                go_backwards=direction == 1,
                # The fused kernel runs neither under XLA nor to second order.
                use_cudnn=False,
                dtype=self.dtype_policy,
            )

        return keras.layers.Bidirectional(
            lstm(0), backward_layer=lstm(1), name=f"bilstm_{index}", dtype=self.dtype_policy
        )

    @property
    def embedding_size(self) -> int:
        """Size E of the embedding."""
        return 2 * self.units

    def build(self, support_x_shape, support_y_shape):
        """Creates the weights for support sets `[T, K, Dx]` and `[T, K, Dy]`.

        Raises:
            ValueError: unless each support point is a vector.
        """
        for name, shape in (("support_x", support_x_shape), ("support_y", support_y_shape)):
            if len(shape) != 3 or shape[-1] is None:
                raise ValueError(
                    f"SequenceEncoder takes {name} of shape [T, K, features], got {tuple(shape)}."
                    " Use another encoder for these tasks."
                )
        size = support_x_shape[-1] + support_y_shape[-1]
        for lstm in self.lstms:
            lstm.build((None, None, size))
            size = self.embedding_size

    def call(self, support_x, support_y):
        """Embeds support sets `[T, K, Dx]` and `[T, K, Dy]` as `[T, E]`."""
        sequence = tf.concat([support_x, tf.cast(support_y, support_x.dtype)], axis=-1)
        points = sequence.shape[1]
        for lstm in self.lstms:
            for direction in (lstm.forward_layer, lstm.backward_layer):
                # Unrolled is much faster, but possible only for a known number of points.
                direction.unroll = points is not None and points <= _LONGEST_UNROLLED
            sequence = lstm(sequence)
        return sequence

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "layers": self.num_layers,
            "seed": self.seed,
        }
