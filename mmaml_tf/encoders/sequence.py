"""An encoder that reads the support points one after the other."""

import threading
from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.encoders.points import as_points, points_size
from mmaml_tf.seeds import derive_seed

# Longer support sets than this run through a while loop instead of an unrolled graph.
_LONGEST_UNROLLED = 32
# Threads that trace graphs for other numbers of points take turns.
_UNROLLING = threading.Lock()


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
        self.units = whole_number("units", units)
        self.num_layers = whole_number("layers", layers)
        self.seed = whole_number("seed", seed, None)
        self.lstms = [self._bidirectional(index) for index in range(self.num_layers)]

    def _bidirectional(self, index):
        def lstm(direction):
            bound = self.units**-0.5
            kernel, recurrent, bias = (
                keras.initializers.RandomUniform(
                    -bound, bound, derive_seed(self.seed, "SequenceEncoder", index, direction, part)
                )
                for part in ("kernel", "recurrent", "bias")
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

    def build(self, support_x_shape: Sequence, support_y_shape: Sequence) -> None:
        """Creates the weights for support sets `[T, K, Dx]` and `[T, K, Dy]`.

        Raises:
            ValueError: unless each support point is a vector.
        """
        size = points_size(self, support_x_shape, support_y_shape)
        for lstm in self.lstms:
            lstm.build((None, None, size))
            size = self.embedding_size

    def call(self, support_x: tf.Tensor, support_y: tf.Tensor) -> tf.Tensor:
        """Embeds support sets `[T, K, Dx]` and `[T, K, Dy]` as `[T, E]`."""
        sequence = as_points(support_x, support_y)
        points = sequence.shape[1]
        with _UNROLLING:
            for lstm in self.lstms:
                for direction in (lstm.forward_layer, lstm.backward_layer):
                    # Unrolled is much faster, but possible only for a known number of points.
                    direction.unroll = points is not None and points <= _LONGEST_UNROLLED
                sequence = lstm(sequence)
        return sequence

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "units": self.units,
            "layers": self.num_layers,
            "seed": self.seed,
        }
