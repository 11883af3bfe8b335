"""The multilayer perceptron, the published network of regression."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import initializers, layers
from mmaml_tf.arguments import whole_number, whole_numbers
from mmaml_tf.names import checked
from mmaml_tf.networks.task_network import TaskNetwork


@keras.saving.register_keras_serializable("mmaml_tf")
class MLP(TaskNetwork):
    """A multilayer perceptron, by default the published regression network.

    Biases start at zero. Modulation acts on the pre-activation of each hidden layer, never on the
    output layer.

    Args:
        hidden: units of the hidden layers.
        outputs: size of the output.
        bias_transformation: size of a learned vector, starting at zero and adapted with the
            other weights, that is joined to the input (Finn et al. 2017b; the MAML baseline of
            the MMAML paper uses 20). 0 for none.
        kernel_initializer: Keras initializer of the kernels, or its name; None for the published
            one, normal with standard deviation 0.01. Each layer draws values of its own.
        seed: seed of the initialisation.
        activation: name of a Keras activation, that of the hidden layers.

    Raises:
        ValueError: for sizes that are no positive whole numbers.
    """

    @checked(stddev="kernel_initializer, such as keras.initializers.RandomNormal(stddev=0.01)")
    def __init__(
        self,
        hidden: Sequence[int] = (100, 100, 100),
        outputs: int = 1,
        bias_transformation: int = 0,
        kernel_initializer: keras.initializers.Initializer | str | None = None,
        seed: int = 0,
        activation: str = "relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = whole_numbers("hidden", hidden)
        self.outputs_size = whole_number("outputs", outputs)
        self.bias_transformation = whole_number("bias_transformation", bias_transformation, 0)
        self.kernel_initializer = initializers.get(
            "kernel_initializer", kernel_initializer, keras.initializers.RandomNormal(stddev=0.01)
        )
        self.seed = whole_number("seed", seed, None)
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self.dense = [
            layers.Dense(
                units,
                initializers.for_layer(self.kernel_initializer, self.seed, "MLP", i),
                dtype=self.dtype_policy,
            )
            for i, units in enumerate((*self.hidden, self.outputs_size))
        ]

    @property
    def modulated_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Those of the hidden layers."""
        return tuple(tuple(dense.kernel.shape) for dense in self.dense[:-1])

    @property
    def head(self) -> Sequence:
        """Kernel and bias of the output layer."""
        return self.dense[-1].trainable_variables

    def build(self, input_shape: Sequence) -> None:
        """Creates the weights for inputs `[..., D]`.

        Raises:
            ValueError: unless the inputs of a task are vectors.
        """
        if len(input_shape) not in (2, 3) or input_shape[-1] is None:
            raise ValueError(
                f"MLP takes inputs of shape [N, features] or [T, N, features], got "
                f"{tuple(input_shape)}."
            )
        size = input_shape[-1] + self.bias_transformation
        for dense in self.dense:
            dense.build((None, size))
            size = dense.units
        if self.bias_transformation:
            self.input_bias = self.add_weight(
                shape=(self.bias_transformation,), initializer="zeros", name="input_bias"
            )
        self.built = True

    def functional_call(
        self, weights: Sequence, x: tf.Tensor, modulation: Sequence | None = None
    ) -> tf.Tensor:
        """See `TaskNetwork.functional_call`."""
        weights, last = self.by_variable(weights), self.dense[-1]
        z = self._features(weights, x, modulation)
        z = layers.dense(z, weights[id(last.kernel)], weights[id(last.bias)])
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

    def _features(self, weights, x, modulation):
        z = tf.cast(x, self.compute_dtype)
        if self.bias_transformation:
            bias = weights[id(self.input_bias)]
            bias = layers.expand_to(bias, z) if bias.shape.rank == 2 else bias
            ones = tf.ones_like(z[..., :1])
            z = tf.concat([z, ones * bias], axis=-1)
        for block, dense in enumerate(self.dense[:-1]):
            change = modulation[block] if modulation else None
            kernel = weights[id(dense.kernel)]
            kernel = kernel if change is None else change.kernel(kernel)
            z = layers.dense(z, kernel, weights[id(dense.bias)])
            z = self._activate(z if change is None else change.pre_activations(z))
        return z

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return {
            "hidden": self.hidden,
            "outputs": self.outputs_size,
            "bias_transformation": self.bias_transformation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
            "activation": self.activation,
            "name": self.name,
            "dtype": self.dtype_policy,
        }
