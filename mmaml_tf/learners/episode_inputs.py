"""What a learner takes: episodes that fit its parts, with values that can be used."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.checks import as_tensor, assert_index, assert_values
from mmaml_tf.episodes import Episodes, as_mode, check_episodes
from mmaml_tf.learners.meta_learner import MetaLearner


class EpisodeInputs(MetaLearner):
    """A meta-learner whose data are `Episodes`: builds its parts for them, and checks them."""

    batch_type = Episodes
    batch_fields = 3

    # -- building ---------------------------------------------------------------------------

    def _example_data(self, support_x, support_y):
        x = keras.random.normal((2, 3, *support_x[2:]), dtype=self.compute_dtype, seed=2)
        y = keras.random.uniform((2, 3, *support_y[2:]), 0.0, 1.9, self.compute_dtype, seed=3)
        return x, tf.cast(y, self.target_dtype)

    def _build_encoder(self, *shapes):
        if not getattr(self.encoder, "inputs", None):
            parameters = list(inspect.signature(self.encoder.call).parameters)
            if parameters[1:2] and parameters[1] in ("training", "mask", "initial_state"):
                raise ValueError(
                    f"the encoder {self.encoder.name!r} takes {parameters[0]} alone; give a layer "
                    "whose call takes (support_x, support_y), or a functional model of both."
                )
        try:
            size = super()._build_encoder(*shapes)
        except (TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"the encoder {self.encoder.name!r} cannot be called on (support_x, support_y): "
                f"{str(error).splitlines()[0]} Give a layer whose call takes both, or a functional "
                "model of these two inputs."
            ) from error
        data = self._example_data(*shapes)
        alone = self.embed(*(part[:1] for part in data))
        if not np.allclose(self.embed(*data)[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError(
                f"the encoder {self.encoder.name!r} gives a task another embedding when another "
                "task is beside it; it must not mix what lies on the first axis, that of tasks."
            )
        return size

    def _check_outputs(self, support_x, support_y):
        """Refuses outputs that the loss would silently broadcast against the targets."""
        found = self._example_predictions(support_x[2:])
        outputs, targets = tuple(found.shape[2:]), tuple(support_y[2:])
        # Integer class labels have no axis of classes, or one of size 1.
        labels = outputs[-1:] > (1,) and targets in (outputs[:-1], (*outputs[:-1], 1))
        if outputs != targets and not labels:
            raise ValueError(
                f"the task network gives outputs of shape {outputs} per point, the targets "
                f"have {targets}; they must be equal (or the targets labels of two or more "
                "classes)."
            )
        self.predicts_classes = labels
        self.output_shape_per_point = outputs
        self._example_outputs = found.numpy()
        self._target_shape = targets
        self._check_loss()

    def _example_predictions(self, point):
        """Returns predictions `[1, 32, ...]` for inputs of one shape, with other weights.

        The weights are large, so that predictions lie between 0 and 1 only where they always do.
        """
        x = keras.random.normal((1, 32, *point), dtype=self.compute_dtype, seed=1)
        rng = np.random.default_rng(0)
        weights = [
            tf.constant(3 * rng.normal(size=v.shape), v.dtype)
            for v in self.network.trainable_variables
        ]
        return self.network.functional_call(weights, x)

    def _check_loss(self):
        """Refuses a loss that does not fit the outputs; once built and compiled."""
        loss = self.__dict__.get("task_loss")
        if loss is not None and "_example_outputs" in self.__dict__:
            shapes = self._target_shape, self.target_dtype, self.output_shape_per_point
            loss.check(*shapes, self.compute_dtype)
            loss.check_outputs(self._example_outputs)

    def build_for(self, episodes: Episodes) -> None:
        """Creates all weights for episodes like these (tensors, arrays or specs)."""
        episodes = self.as_batch(episodes)
        check_episodes(episodes)
        if not self.built:
            self.build((tuple(episodes.support_x.shape), tuple(episodes.support_y.shape)))
        self._check_points(episodes.support_x, episodes.support_y)
        self._check_counts(episodes.support_x.shape[1], episodes.query_x.shape[1], training=True)

    def require_targets(self, batch: Any) -> None:
        """See `TaskModel.require_targets`."""
        if self.as_batch(batch).query_y is None:
            raise ValueError(
                "training and evaluation need query_y, the targets of the queries; without them "
                "there is predict."
            )

    def _check_points(self, support_x, support_y):
        """Refuses points of other shapes than those that the learner was built for."""
        for name, given, built in zip(
            ("support_x", "support_y"), (support_x, support_y), self.support_shapes, strict=True
        ):
            given, built = tuple(given.shape[2:]), tuple(built[2:])
            # Class labels may have an axis of size 1, or none.
            labels = name == "support_y" and self.predicts_classes
            if given != built and not (labels and given in ((), (1,))):
                raise ValueError(
                    f"{name} has points of shape {given}; {self.name} was built for {built}."
                )

    def _check_counts(self, support, query=None, training=False):
        """Refuses points that batch normalisation would make nothing of.

        Args:
            support: number K of support points, or None where it is not known or not normalised.
            query: the same of queries.
            training: whether these points are trained on.
        """
        least, statistics = self.network.least_points, self.network.statistics
        of_batch = training or statistics != "moving"
        alone = (training and statistics == "moving") or statistics == "query"
        for name, points, normalised in (
            ("support", support, of_batch), ("query", query, alone)
        ):  # fmt: skip
            if normalised and points is not None and points < least:
                raise ValueError(
                    f"a task has {points} {name} point, which batch normalisation makes nothing of "
                    f"by itself: all outputs would be the same. Give at least {least}"
                    + (
                        ', or make the network with statistics="support".'
                        if name == "query"
                        else "."
                    )
                )

    # -- values -----------------------------------------------------------------------------

    def _checked(self, episodes):
        """Returns episodes in the types the learner takes, asserting their values in the graph."""
        inputs = self.as_inputs(episodes)
        mode, checks = as_mode(episodes.mode), self.assert_data(*inputs, origin=episodes.origin)
        if mode is not None and self.modes:
            checks += assert_index(
                mode, len(self.modes), f"mode must be the index of one of {self.modes}."
            )
        with tf.control_dependencies(checks):
            inputs = [None if part is None else tf.identity(part) for part in inputs]
        return Episodes(*inputs, mode, episodes.origin)

    def assert_data(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        query_x: tf.Tensor | None = None,
        query_y: tf.Tensor | None = None,
        origin: Any = None,
    ) -> list:
        """Returns assertions that inputs and targets are finite and class labels exist.

        Args:
            support_x: `[T, K, ...]`.
            support_y: `[T, K, ...]`.
            query_x: `[T, Q, ...]`, or None.
            query_y: `[T, Q, ...]`, or None.
            origin: `[2]` (seed, step) of the batch, or None.
        """
        classes = self.output_shape_per_point[-1] if self.predicts_classes else None
        parts = {"support_x": support_x, "support_y": support_y}
        parts |= {"query_x": query_x, "query_y": query_y}
        return [assert_values(parts, classes, origin)]

    def _as_input(self, array, name="support_x"):
        array = as_tensor(name, array)
        cast = tf.cast(array, self.compute_dtype)
        if (
            tf.executing_eagerly()
            and array.dtype.is_floating
            and array.dtype.size > cast.dtype.size
        ):
            # What was finite before the cast is too large for it.
            lost = tf.reduce_any(tf.math.is_finite(array) & ~tf.math.is_finite(cast))
            if lost:
                raise ValueError(f"{name} has values that {self.compute_dtype} cannot hold.")
        return cast

    def _as_target(self, array, name="support_y"):
        if self.predicts_classes:
            array = as_tensor(name, array)
            if not array.dtype.is_integer:
                raise ValueError(f"{name} has type {array.dtype.name}; class labels are integers.")
            if {tuple(array.shape[2:]), self._target_shape} == {(), (1,)}:
                array = tf.reshape(array, [*tf.unstack(tf.shape(array)[:2]), *self._target_shape])
            return tf.cast(array, self.target_dtype)
        return self._as_input(array, name)

    def as_inputs(self, episodes: Episodes) -> tuple:
        """Returns support_x, support_y, query_x and query_y in the types the learner takes.

        Args:
            episodes: their query_y may be None, and stays so.

        Raises:
            ValueError: for class labels that are no integers.
        """
        return (
            self._as_input(episodes.support_x),
            self._as_target(episodes.support_y),
            self._as_input(episodes.query_x, "query_x"),
            None if episodes.query_y is None else self._as_target(episodes.query_y, "query_y"),
        )

    @property
    def link(self) -> Callable | None:
        """What makes probabilities of predictions, a function, or None where they are none.

        A loss of one's own on class labels is taken to be on logits, unless the network gives
        probabilities already.
        """
        if self.task_loss.are_probabilities(self._example_outputs):
            return None
        return self.task_loss.link(self.predicts_classes)

    @property
    def target_dtype(self) -> str:
        """The type of targets, int32 for class labels; known once built."""
        return "int32" if self.predicts_classes else self.compute_dtype
