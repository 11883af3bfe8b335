"""Policies: task networks whose output is a distribution of actions."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from mmaml_tf import initializers
from mmaml_tf.arguments import positive_number, whole_number
from mmaml_tf.networks import MLP


@keras.saving.register_keras_serializable("mmaml_tf")
class GaussianPolicy(MLP):
    """A normal distribution of actions whose mean is an MLP of the observation.

    The logarithm of the standard deviation is one learned vector, whatever the observation, and
    adapted like all other weights. By default the hidden layers are tanh and start Xavier-uniform
    (the published policy of ProMP and MMAML). `functional_call` returns means.

    Args:
        actions: size A of an action.
        hidden: units of the hidden layers, which modulation acts on.
        initial_std: standard deviation to start from.
        min_std: the least standard deviation.
        activation: see `MLP`.
        kernel_initializer: see `MLP`; None for the published one, Xavier-uniform.
        **kwargs: see `MLP`.

    Raises:
        ValueError: for sizes or standard deviations that are not positive.
    """

    def __init__(
        self,
        actions: int,
        hidden: Sequence[int] = (64, 64),
        initial_std: float = 1.0,
        min_std: float = 1e-6,
        *,
        activation: str = "tanh",
        kernel_initializer: keras.initializers.Initializer | str | None = None,
        **kwargs,
    ):
        actions = whole_number("actions", actions)
        super().__init__(
            hidden,
            actions,
            activation=activation,
            kernel_initializer=initializers.get(
                "kernel_initializer", kernel_initializer, "glorot_uniform"
            ),
            **kwargs,
        )
        self.initial_std = positive_number("initial_std", initial_std)
        self.min_std = positive_number("min_std", min_std)
        if min_std > initial_std:
            raise ValueError(
                f"initial_std={initial_std}, min_std={min_std}: the first must be no less than the "
                "second."
            )

    def build(self, input_shape: Sequence) -> None:
        """Creates the weights for observations `[..., O]`; see `MLP.build`."""
        super().build(input_shape)
        self.log_std = self.add_weight(
            shape=(self.outputs_size,),
            initializer=keras.initializers.Constant(math.log(self.initial_std)),
            name="log_std",
        )

    @property
    def head(self) -> list:
        """Kernel and bias of the output layer, and the standard deviations."""
        return [*super().head, self.log_std]

    def standard_deviations(self, weights: Sequence) -> tf.Tensor:
        """Returns the standard deviations `[A]`, or `[T, A]` of adapted weights."""
        given = {id(v): w for v, w in zip(self.trainable_variables, weights, strict=True)}
        log_std = given.get(id(self.log_std), self.log_std.value)  # its own where it is frozen
        return tf.exp(tf.maximum(log_std, math.log(self.min_std)))

    def distribution(
        self, weights: Sequence, x: tf.Tensor, modulation: Sequence | None = None
    ) -> tfp.distributions.Distribution:
        """Returns the distribution of actions.

        Args:
            weights: see `TaskNetwork.functional_call`.
            x: `[T, N, O]` observations.
            modulation: see there.

        Returns:
            A TensorFlow Probability distribution with batch shape `[T, N]` and event shape `[A]`.
        """
        means = self.functional_call(weights, x, modulation)
        return normal(means, self.standard_deviations(weights))

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        config = super().get_config()
        actions = config.pop("outputs")
        own = {"actions": actions, "initial_std": self.initial_std, "min_std": self.min_std}
        return config | own


def normal(means: tf.Tensor, stds: tf.Tensor) -> tfp.distributions.Distribution:
    """Returns independent normal distributions of the elements of actions.

    Args:
        means: `[T, N, A]`.
        stds: `[A]`, or `[T, A]`.
    """
    if stds.shape.rank == 2:
        stds = stds[:, None]
    return tfp.distributions.Independent(
        tfp.distributions.Normal(means, stds), reinterpreted_batch_ndims=1
    )
