"""Policies: task networks whose output is a distribution of actions."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from mmaml_tf.arguments import positive_number, whole_number
from mmaml_tf.networks import MLP


@keras.saving.register_keras_serializable("mmaml_tf")
class GaussianPolicy(MLP):
    """A normal distribution of actions whose mean is an MLP of the observation.

    The hidden layers are tanh and start Xavier-uniform; the logarithm of the standard deviation
    is one learned vector, whatever the observation, and adapted like all other weights (the
    published policy of ProMP and MMAML). `functional_call` returns means.

    Args:
        actions: size A of an action.
        hidden: units of the hidden layers, which modulation acts on.
        initial_std: standard deviation to start from.
        min_std: the least standard deviation.
        seed: seed of the initialisation.
        bias_transformation: see `MLP`.

    Raises:
        ValueError: for sizes or standard deviations that are not positive.
    """

    def __init__(
        self,
        actions: int,
        hidden: Sequence[int] = (64, 64),
        initial_std: float = 1.0,
        min_std: float = 1e-6,
        seed: int = 0,
        bias_transformation: int = 0,
        **kwargs,
    ):
        actions = whole_number("actions", actions)
        super().__init__(hidden, actions, bias_transformation, None, seed, "tanh", **kwargs)
        self.initial_std = positive_number("initial_std", initial_std)
        self.min_std = positive_number("min_std", min_std)
        if min_std > initial_std:
            raise ValueError(
                f"initial_std={initial_std}, min_std={min_std}: the first must be no less than the "
                "second."
            )

    def build(self, input_shape):
        """Creates the weights for observations `[..., O]`; see `MLP.build`."""
        super().build(input_shape)
        self.log_std = self.add_weight(
            shape=(self.outputs_size,),
            initializer=keras.initializers.Constant(math.log(self.initial_std)),
            name="log_std",
        )

    @property
    def head(self):
        """Kernel and bias of the output layer, and the standard deviations."""
        return [*super().head, self.log_std]

    def standard_deviations(self, weights: Sequence):
        """Returns the standard deviations `[A]`, or `[T, A]` of adapted weights."""
        given = {id(v): w for v, w in zip(self.trainable_variables, weights, strict=True)}
        log_std = given.get(id(self.log_std), self.log_std.value)  # its own where it is frozen
        return tf.exp(tf.maximum(log_std, math.log(self.min_std)))

    def distribution(self, weights: Sequence, x, modulation: Sequence | None = None):
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

    def get_config(self):
        """Returns the constructor arguments."""
        return {
            "actions": self.outputs_size,
            "hidden": self.hidden,
            "initial_std": self.initial_std,
            "min_std": self.min_std,
            "seed": self.seed,
            "bias_transformation": self.bias_transformation,
            "name": self.name,
            "dtype": self.dtype_policy,
        }


def normal(means, stds):
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
