"""A loss by which the task embedding must tell what the support points show."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.arguments import real_number, whole_number
from mmaml_tf.encoders.points import points_size
from mmaml_tf.encoders.running import run_encoder
from mmaml_tf.seeds import derive_seed

_serialize = keras.saving.serialize_keras_object
_deserialize = keras.saving.deserialize_keras_object


@keras.saving.register_keras_serializable("mmaml_tf")
class Reconstruction(keras.layers.Layer):
    """An encoder that learns from a reconstruction of the support points, too.

    A decoder with one hidden layer predicts each support target from the embedding and the
    point's input. In training, weight times its mean squared error joins the outer loss. It is the
    reconstruction loss of ARML (Yao et al. 2020), whose decoder gives the features of points and
    not their targets.

    Args:
        encoder: the encoder, of support points that are vectors.
        weight: weight of the loss; 0 for none, and no decoder.
        units: hidden units of the decoder.
        seed: seed of the decoder's initialisation.

    Raises:
        ValueError: for a negative weight, less than one unit, or an encoder that is no layer.
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        *,
        weight: float,
        units: int = 40,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(
                f"the encoder is a {type(encoder).__name__}; expected a keras.layers.Layer."
            )
        self.encoder = encoder
        self.weight = real_number("weight", weight)
        self.units = whole_number("units", units)
        self.seed = whole_number("seed", seed, None)
        self.decoder = None

    def build(self, support_x_shape: Sequence, support_y_shape: Sequence) -> None:
        """Prepares for support sets `[T, K, Dx]` and `[T, K, Dy]`.

        Raises:
            ValueError: unless each support point is a vector.
        """
        points_size(self, support_x_shape, support_y_shape)
        if self.weight:
            self.decoder = [
                layers.Dense(
                    size,
                    keras.initializers.GlorotUniform(derive_seed(self.seed, "Reconstruction", i)),
                    dtype=self.dtype_policy,
                )
                for i, size in enumerate((self.units, support_y_shape[-1]))
            ]
        self.built = True

    def call(self, support_x: tf.Tensor, support_y: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Embeds support sets `[T, K, Dx]` and `[T, K, Dy]` as `[T, E]`."""
        embedding = run_encoder(self.encoder, (support_x, support_y), training)
        if self.weight:
            predictions, targets = (
                tf.cast(part, self.variable_dtype)
                for part in (self._decode(embedding, support_x), support_y)
            )
            if training:
                error = tf.reduce_mean(tf.square(predictions - targets))
                self.add_loss(self.weight * error)
        return embedding

    def _decode(self, embedding, support_x):
        points = support_x.shape[1] or tf.shape(support_x)[1]
        known = tf.tile(tf.cast(embedding, support_x.dtype)[:, None], [1, points, 1])
        hidden, last = self.decoder
        return last(tf.nn.relu(hidden(tf.concat([known, support_x], axis=-1))))

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "encoder": _serialize(self.encoder),
            "weight": self.weight,
            "units": self.units,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Reconstruction":
        """Makes an encoder from what `get_config` returned."""
        return cls(**config | {"encoder": _deserialize(config["encoder"])})
