"""Strided convolutions, the published network of classification."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import initializers, layers
from mmaml_tf.arguments import whole_number, whole_numbers
from mmaml_tf.networks.task_network import TaskNetwork


@keras.saving.register_keras_serializable("mmaml_tf")
class ConvNet(TaskNetwork):
    """Strided convolutions with batch statistics, the published classification network.

    Each block is a 3×3 convolution of stride 2, normalisation by batch statistics without learned
    scale or shift, the modulation, and a ReLU. The mean over positions goes to a linear layer.
    Biases start at zero. Images are `[H, W, C]` with values in [0, 1].

    The statistics are those of the batch at hand, in training as at inference: the support set
    while adapting, and for the queries either the queries themselves ("query", transductive, as
    published: a prediction depends on the other queries) or the support set ("support").

    Args:
        filters: channels of each block.
        outputs: number of classes N, or None to stop at the mean over positions.
        statistics: "query" or "support".
        form: how per-task kernels are applied, see `layers.conv2d`.
        kernel_initializer: Keras initializer of the kernels, or its name; None for the published
            one, Xavier-uniform. Each layer draws values of its own.
        seed: seed of the initialisation.

    Raises:
        ValueError: for sizes that are not positive, or unknown statistics or form.
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128, 256),
        outputs: int | None = 5,
        statistics: str = "query",
        form: str = "auto",
        kernel_initializer: keras.initializers.Initializer | str | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        filters = whole_numbers("filters", filters)
        outputs = None if outputs is None else whole_number("outputs", outputs)
        seed = whole_number("seed", seed, None)
        if statistics not in ("query", "support"):
            raise ValueError(f'statistics is {statistics!r}; expected "query" or "support".')
        if form not in layers.CONVOLUTION_FORMS:
            raise ValueError(f"form is {form!r}; expected one of {layers.CONVOLUTION_FORMS}.")
        self.filters = filters
        self.outputs_size = outputs
        self.statistics = statistics
        self.form = form
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
            ValueError: unless the inputs of a task are images.
        """
        if len(input_shape) not in (4, 5) or None in input_shape[-3:]:
            raise ValueError(
                "ConvNet takes images of shape [N, H, W, C] or [T, N, H, W, C], got "
                f"{tuple(input_shape)}."
            )
        size = input_shape[-1]
        for convolution in self.convolutions:
            convolution.build((None, None, None, None, size))
            size = convolution.filters
        if self.dense is not None:
            self.dense.build((None, size))
        halvings = 2 ** len(self.filters)
        self.least_points = 2 if max(input_shape[-3:-1]) <= halvings else 1
        self.built = True

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
            `[T, N, outputs]` logits, or features `[T, N, filters[-1]]` without outputs.
        """
        weights = self.by_variable(weights)
        reference = None  # number of leading points whose statistics are used; None for all
        if self.statistics == "support" and support_x is not None:
            reference = support_x.shape[1] or tf.shape(support_x)[1]
            x = tf.concat([support_x, x], axis=1)
        z = tf.cast(x, self.compute_dtype)
        for block, convolution in enumerate(self.convolutions):
            change = modulation[block] if modulation else None
            kernel = weights[id(convolution.kernel)]
            kernel = kernel if change is None else change.kernel(kernel)
            z = layers.conv2d(z, kernel, form=self.form)
            z = layers.batch_normalise(z, statistics_of=z[:, :reference])
            z = tf.nn.relu(z if change is None else change.pre_activations(z))
        z = tf.reduce_mean(z[:, reference:], axis=[2, 3])
        if self.dense is not None:
            z = layers.dense(z, weights[id(self.dense.kernel)], weights[id(self.dense.bias)])
        return tf.cast(z, self.variable_dtype)

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
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
            "name": self.name,
            "dtype": self.dtype_policy,
        }
