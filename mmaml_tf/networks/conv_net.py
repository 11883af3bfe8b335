"""Convolutional networks of few-shot classification, strided or pooled."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import initializers, layers
from mmaml_tf.arguments import flag, whole_number, whole_numbers
from mmaml_tf.layers.points import sizes_of
from mmaml_tf.networks.task_network import TaskNetwork


@keras.saving.register_keras_serializable("mmaml_tf")
class ConvNet(TaskNetwork):
    """Convolutions with batch statistics, by default the published classification network.

    Each block is a 3×3 convolution, normalisation by batch statistics, the modulation, and a ReLU.
    A block halves the image, by strides or by the maxima of 2×2 squares. What is left goes to a
    linear layer. Biases start at zero. Images are `[H, W, C]` with values in [0, 1].

    By default it is the network of the MMAML paper, with strides, the mean over positions and no
    learned scale. Most published tables of few-shot classification have another one, Conv-4
    (Vinyals et al. 2016; Snell et al. 2017):

        >>> network = mm.networks.ConvNet(
        ...     (64, 64, 64, 64), outputs=5, halving="max", features="all", affine=True
        ... )
        >>> network(tf.zeros((10, 28, 28, 3))).shape
        TensorShape([10, 5])

    The statistics are those of the batch at hand, in training as at inference: the support set
    while adapting, and for the queries either the queries themselves ("query", transductive, as
    published: a prediction depends on the other queries) or the support set ("support").

    Args:
        filters: channels of each block.
        outputs: number of classes N, or None to stop before the linear layer.
        statistics: "query" or "support".
        form: how per-task kernels are applied, see `layers.conv2d`.
        halving: "strides" for convolutions of stride 2, or "max" for convolutions of stride 1 and
            max-pooling, see `layers.max_pool`.
        features: what the linear layer takes: the "mean" over positions, or "all" of them.
        affine: whether the normalisation has a learned scale and shift, which are adapted like
            all other weights.
        kernel_initializer: Keras initializer of the kernels, or its name; None for the published
            one, Xavier-uniform. Each layer draws values of its own.
        seed: seed of the initialisation.

    Raises:
        ValueError: for sizes that are not positive, or an unknown choice.
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128, 256),
        outputs: int | None = 5,
        statistics: str = "query",
        form: str = "auto",
        halving: str = "strides",
        features: str = "mean",
        affine: bool = False,
        kernel_initializer: keras.initializers.Initializer | str | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        filters = whole_numbers("filters", filters)
        outputs = None if outputs is None else whole_number("outputs", outputs)
        seed = whole_number("seed", seed, None)
        for name, value, choices in (
            ("statistics", statistics, ("query", "support")),
            ("form", form, layers.CONVOLUTION_FORMS),
            ("halving", halving, ("strides", "max")),
            ("features", features, ("mean", "all")),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {choices}.")
        self.filters = filters
        self.outputs_size = outputs
        self.statistics = statistics
        self.form = form
        self.halving = halving
        self.features = features
        self.pooled = halving == "max"
        self.affine = flag("affine", affine)
        self.seed = seed
        self.kernel_initializer = initializers.get(
            "kernel_initializer", kernel_initializer, "glorot_uniform"
        )
        *of_blocks, of_head = (
            initializers.for_layer(self.kernel_initializer, seed, "ConvNet", i)
            for i in range(len(filters) + 1)
        )
        self.convolutions = [
            layers.Conv2D(size, kernel_initializer=initializer, dtype=self.dtype_policy)
            for size, initializer in zip(filters, of_blocks, strict=True)
        ]
        self.dense = None
        if outputs is not None:
            self.dense = layers.Dense(outputs, of_head, dtype=self.dtype_policy)

    @property
    def modulated_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Those of the convolutions."""
        return tuple(tuple(convolution.kernel.shape) for convolution in self.convolutions)

    @property
    def uses_support(self) -> bool:
        """Whether the statistics are the support set's."""
        return self.statistics == "support"

    @property
    def head(self) -> Sequence:
        """Kernel and bias of the linear layer."""
        return [] if self.dense is None else self.dense.trainable_variables

    def build(self, input_shape: Sequence) -> None:
        """Creates the weights for images `[..., H, W, C]`.

        Raises:
            ValueError: unless the inputs of a task are images, and large enough to be pooled.
        """
        if len(input_shape) not in (4, 5) or None in input_shape[-3:]:
            raise ValueError(
                "ConvNet takes images of shape [N, H, W, C] or [T, N, H, W, C], got "
                f"{tuple(input_shape)}."
            )
        *sizes, channels = input_shape[-3:]
        self.scales, self.shifts = [], []
        for block, convolution in enumerate(self.convolutions):
            convolution.build((None, None, None, None, channels))
            channels = convolution.filters
            if self.affine:
                self.scales.append(self._add_vector(f"scale_{block}", channels, "ones"))
                self.shifts.append(self._add_vector(f"shift_{block}", channels, "zeros"))
            if self.pooled:
                normalised, sizes = sizes, [size // 2 for size in sizes]
            else:
                normalised = sizes = [(size + 1) // 2 for size in sizes]
        if 0 in sizes:
            raise ValueError(
                f"images of {input_shape[-3]}×{input_shape[-2]} pixels cannot be pooled "
                f"{len(self.filters)} times; give larger images, fewer filters or "
                'halving="strides".'
            )
        if self.dense is not None:
            positions = math.prod(sizes) if self.features == "all" else 1
            self.dense.build((None, positions * channels))
        self.least_points = 2 if max(normalised) == 1 else 1
        self.built = True

    def _add_vector(self, name, size, initializer):
        return self.add_weight(shape=(size,), initializer=initializer, name=name)

    def functional_call(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        support_x: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """See `TaskNetwork.functional_call`.

        Args:
            weights: see there.
            x: `[T, N, H, W, C]`.
            modulation: see there.
            support_x: `[T, K, H, W, C]` images whose statistics are used with
                `statistics="support"`; by default those of x.

        Returns:
            `[T, N, outputs]` logits, or features `[T, N, F]` without outputs.
        """
        weights = self.by_variable(weights)
        z = self._features(weights, x, modulation, support_x)
        if self.dense is not None:
            z = layers.dense(z, weights[id(self.dense.kernel)], weights[id(self.dense.bias)])
        return tf.cast(z, self.variable_dtype)

    def head_inputs(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """See `TaskNetwork.head_inputs`."""
        del training
        features = self._features(self.by_variable(weights), x, modulation)
        return tf.cast(features, self.variable_dtype)

    def _features(self, weights, x, modulation, support_x=None):
        reference = None  # number of leading points whose statistics are used; None for all
        if self.statistics == "support" and support_x is not None:
            reference = support_x.shape[1] or tf.shape(support_x)[1]
            x = tf.concat([support_x, x], axis=1)
        z = tf.cast(x, self.compute_dtype)
        for block, convolution in enumerate(self.convolutions):
            change = modulation[block] if modulation else None
            kernel = weights[id(convolution.kernel)]
            kernel = kernel if change is None else change.kernel(kernel)
            z = layers.conv2d(z, kernel, strides=1 if self.pooled else 2, form=self.form)
            z = layers.batch_normalise(z, statistics_of=z[:, :reference])
            if self.affine:
                vectors = weights[id(self.scales[block])], weights[id(self.shifts[block])]
                scale, shift = (v if v.shape.rank == 1 else layers.expand_to(v, z) for v in vectors)
                z = z * scale + shift
            z = z if change is None else change.pre_activations(z)
            # A ReLU keeps the order of values, so that it may follow the pooling, which costs less.
            z = tf.nn.relu(layers.max_pool(z) if self.pooled else z)
        z = z[:, reference:]
        if self.features == "mean":
            return tf.reduce_mean(z, axis=[2, 3])
        return tf.reshape(z, [*sizes_of(z)[:2], math.prod(z.shape[2:])])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Runs the network on its own weights, images `[N, H, W, C]` or `[T, N, H, W, C]`."""
        single = len(x.shape) == 4
        outputs = super().call(x[None] if single else x)
        return outputs[0] if single else outputs

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return {
            "filters": self.filters,
            "outputs": self.outputs_size,
            "statistics": self.statistics,
            "form": self.form,
            "halving": self.halving,
            "features": self.features,
            "affine": self.affine,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
            "name": self.name,
            "dtype": self.dtype_policy,
        }
