"""Prototypical networks (Snell et al. 2017), the baseline that needs no adaptation."""

import keras
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.inner_loop import check_steps
from mmaml_tf.learners import Learner
from mmaml_tf.names import checked


@keras.saving.register_keras_serializable("mmaml_tf")
class ProtoNet(Learner):
    """Classifies by the squared distance to the mean features of each class's support points.

    Args:
        network: a task network whose outputs are features, for example
            `ConvNet(outputs=None)`.
        ways: most classes N of a task.
        **kwargs: see `Learner`; a ProtoNet has no encoder, modulation or inner loop.
    """

    without = ("encoder", "modulation", "inner_loop")

    @checked()
    def __init__(self, network: keras.Model, *, ways: int, **kwargs):
        super().__init__(network, **kwargs)
        self.ways = whole_number("ways", ways, 2)

    def _example_predictions(self, point):
        """See `Learner`: logits of N classes, whatever the number of features."""
        del point
        return keras.random.normal((1, 32, self.ways), dtype=self.compute_dtype, seed=1)

    def _adaptation_path(
        self, support_x, support_y, mode, affine, steps=None, training=False, first_order=None
    ):
        """Returns the prototypes `[T, N, E]`, which more inner steps would not change."""
        del mode, affine, first_order
        result = self.network.run(self._shared_weights(), support_x, training=training)
        features = tf.cast(result.outputs, self.compute_dtype)
        labels = tf.reshape(support_y, tf.shape(support_y)[:2])
        members = tf.one_hot(labels, self.ways, axis=1, dtype=features.dtype)  # [T, N, K]
        counts = tf.reduce_sum(members, axis=2, keepdims=True)
        prototypes = tf.matmul(members, features) / tf.maximum(counts, 1)
        return [[prototypes]] * (1 + check_steps(steps or 0))

    def _forward(self, weights, affine, support_x, x, training):
        """Gives logits, minus the squared distances (up to what all classes have in common)."""
        del affine
        (prototypes,) = weights
        result = self.network.run(self._shared_weights(), x, None, support_x, training)
        products = tf.matmul(
            tf.cast(result.outputs, self.compute_dtype), prototypes, transpose_b=True
        )
        logits = 2 * products - tf.reduce_sum(tf.square(prototypes), axis=2)[:, None]
        return result._replace(outputs=logits)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"ways": self.ways}
