"""Prototypical networks, which classify without adapting any weight."""

import keras
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.inner_loop import check_steps
from mmaml_tf.learners import Learner
from mmaml_tf.learners.classes import prototypes
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked


@keras.saving.register_keras_serializable("mmaml_tf")
class ProtoNet(Learner):
    """Classifies by the squared distance to the mean features of each class's support points.

    Without encoder and modulation it is the prototypical network (Snell et al. 2017); with them
    the support set modulates the network first (MProtoNet; Abdollahzadeh et al. 2021).

    Args:
        network: a task network whose outputs are features, for example
            `ConvNet(outputs=None)`.
        ways: most classes N of a task.
        encoder: see `Learner`.
        modulation: see `Learner`.
        **kwargs: see `Learner`; a ProtoNet has no inner loop, and no output layer to choose a head
            for.

    Raises:
        ValueError: for an argument that has no meaning here; see also `Learner`.
    """

    without = ("inner_loop",)

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        ways: int,
        encoder: keras.layers.Layer | None = None,
        modulation: Modulation | str | None = None,
        **kwargs,
    ):
        super().__init__(network, encoder=encoder, modulation=modulation, **kwargs)
        self.ways = whole_number("ways", ways, 2)
        if self.head != "learned":
            raise ValueError(f"ProtoNet got head={self.head!r}, but has no head; leave it out.")

    def _example_predictions(self, point):
        """See `Learner`: logits of N classes, whatever the number of features."""
        del point
        return keras.random.normal((1, 32, self.ways), dtype=self.compute_dtype, seed=1)

    def _adaptation_path(
        self, support_x, support_y, mode, affine, steps=None, training=False, first_order=None
    ):
        """Returns the prototypes `[T, N, F]`, which more inner steps would not change."""
        del mode, first_order
        result = self.network.run(self._shared_weights(), support_x, affine, training=training)
        features = tf.cast(result.outputs, self.compute_dtype)
        return [[prototypes(features, support_y, self.ways)]] * (1 + check_steps(steps or 0))

    def _forward(self, weights, affine, support_x, x, training):
        """Gives logits, minus the squared distances (up to what all classes have in common)."""
        (means,) = weights
        result = self.network.run(self._shared_weights(), x, affine, support_x, training)
        products = tf.matmul(tf.cast(result.outputs, self.compute_dtype), means, transpose_b=True)
        logits = 2 * products - tf.reduce_sum(tf.square(means), axis=2)[:, None]
        return result._replace(outputs=logits)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"ways": self.ways}
