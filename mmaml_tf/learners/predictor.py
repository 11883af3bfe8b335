"""A task network that has been adapted."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.checks import as_value_errors, assert_values
from mmaml_tf.episodes import check_query


class Predictor:
    """A task network adapted to one task or a batch of tasks.

    Attributes:
        weights: the adapted weights, tensors `[T, ...]`.
    """

    def __init__(
        self,
        learner: keras.Model,
        weights: Sequence,
        affine: Sequence | None,
        support: tuple[tf.Tensor, tf.Tensor],
        single: bool,
    ):
        self.weights = weights
        self._learner = learner
        self._affine = affine
        self._support = support
        self._single = single
        # What the network does not adapt may change when training goes on.
        self._snapshot = [tf.identity(tf.convert_to_tensor(v)) for v in learner.snapshot_variables]

    def __call__(self, query_x: ArrayLike) -> tf.Tensor:
        """Predicts for `[Q, ...]` (one task) or `[T, Q, ...]` inputs.

        Raises:
            ValueError: when the queries do not fit the support set.
        """
        learner = self._learner
        query_x = learner._as_input(query_x, "query_x")
        if self._single:
            query_x = query_x[None]
        check_query(self._support[0], query_x)
        learner._check_counts(None, query_x.shape[1])
        with as_value_errors():
            assert_values({"query_x": query_x})
            predictions = learner._predict_graph(
                self.weights, self._affine, self._support, query_x, self._snapshot
            )
        finite = tf.reduce_all(tf.math.is_finite(predictions), range(1, predictions.shape.rank))
        if not tf.reduce_all(finite):
            task = int(tf.argmin(tf.cast(finite, tf.int8)))
            raise ValueError(
                f"predictions of task {task} are not finite: its inner loop diverged, or its "
                f"inputs are too large for {learner.network.compute_dtype}. Scale the inputs, "
                "lower the inner learning rate, or set InnerLoop(clip=...)."
            )
        return predictions[0] if self._single else predictions
