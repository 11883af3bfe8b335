"""An encoder of support images."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.arguments import whole_number, whole_numbers
from mmaml_tf.seeds import derive_seed


@keras.saving.register_keras_serializable("mmaml_tf")
class ImageEncoder(keras.layers.Layer):
    """Strided convolutions over the support images, averaged over them.

    Each block is a 3×3 convolution of stride 2, batch normalisation with learned scale and shift
    by the statistics of the support set, and a ReLU. The mean over positions goes through a
    linear layer and a ReLU; the embedding is the mean over images, whatever their order (the
    published classification encoder). Weights start uniform in ±1/sqrt(fan-in), as published.

    Args:
        filters: channels of each block.
        units: size E of the embedding.
        label_classes: 0 for an encoder of the images alone, as published; else the number of
            classes N, and each image's one-hot label joins its features.
        form: see `layers.conv2d`.
        seed: seed of the initialisation.

    Raises:
        ValueError: for sizes that are not positive.
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128, 256),
        units: int = 128,
        label_classes: int = 0,
        form: str = "auto",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if form not in layers.CONVOLUTION_FORMS:
            raise ValueError(f"form is {form!r}; expected one of {layers.CONVOLUTION_FORMS}.")
        self.filters = whole_numbers("filters", filters)
        self.units = units = whole_number("units", units)
        self.label_classes = label_classes = whole_number("label_classes", label_classes, 0)
        self.form = form
        self.seed = seed = whole_number("seed", seed, None)
        initializers = [
            # Uniform in ±1/sqrt(fan-in).
            keras.initializers.VarianceScaling(
                1 / 3, "fan_in", "uniform", derive_seed(seed, "ImageEncoder", i)
            )
            for i in range(len(self.filters) + 1)
        ]
        bound = (self.filters[-1] + label_classes) ** -0.5
        bias = keras.initializers.RandomUniform(
            -bound, bound, derive_seed(seed, "ImageEncoder", "bias")
        )
        self.convolutions = [
            layers.Conv2D(size, kernel_initializer=initializer, dtype=self.dtype_policy)
            for size, initializer in zip(self.filters, initializers, strict=False)
        ]
        self.dense = layers.Dense(units, initializers[-1], bias, dtype=self.dtype_policy)

    @property
    def embedding_size(self) -> int:
        """Size E of the embedding."""
        return self.units

    def build(self, support_x_shape: Sequence, support_y_shape: Sequence) -> None:
        """Creates the weights for support sets `[T, K, H, W, C]` with labels `[T, K]`.

        Raises:
            ValueError: unless the support points are images, with labels where those are used.
        """
        if len(support_x_shape) != 5 or None in support_x_shape[2:]:
            raise ValueError(
                f"ImageEncoder takes support_x of shape [T, K, H, W, C], got "
                f"{tuple(support_x_shape)}. Use another encoder for these tasks."
            )
        if self.label_classes and len(support_y_shape) != 2:
            raise ValueError(
                f"ImageEncoder(label_classes={self.label_classes}) takes labels support_y of "
                f"shape [T, K], got {tuple(support_y_shape)}."
            )
        size = support_x_shape[-1]
        self.scales, self.shifts = [], []
        for block, convolution in enumerate(self.convolutions):
            convolution.build((None, None, None, None, size))
            size = convolution.filters
            for kind, initial, to in (
                ("scale", "ones", self.scales),
                ("shift", "zeros", self.shifts),
            ):
                name = f"{kind}_{block}"
                to.append(self.add_weight(shape=(size,), initializer=initial, name=name))
        self.dense.build((None, size + self.label_classes))
        self.built = True

    def call(self, support_x: tf.Tensor, support_y: tf.Tensor) -> tf.Tensor:
        """Embeds support sets `[T, K, H, W, C]` with labels `[T, K]` as `[T, E]`."""
        z = tf.cast(support_x, self.compute_dtype)
        for convolution, scale, shift in zip(
            self.convolutions, self.scales, self.shifts, strict=True
        ):
            kernel = tf.cast(convolution.kernel, z.dtype)
            z = layers.conv2d(z, kernel, form=self.form)
            z = layers.batch_normalise(z, statistics_of=z)
            z = tf.nn.relu(z * tf.cast(scale, z.dtype) + tf.cast(shift, z.dtype))
        z = tf.reduce_mean(z, axis=[2, 3])
        if self.label_classes:
            labels = tf.one_hot(tf.cast(support_y, tf.int32), self.label_classes, dtype=z.dtype)
            z = tf.concat([z, labels], axis=-1)
        return tf.reduce_mean(tf.nn.relu(self.dense(z)), axis=1)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "filters": self.filters,
            "units": self.units,
            "label_classes": self.label_classes,
            "form": self.form,
            "seed": self.seed,
        }
