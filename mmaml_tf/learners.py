"""Learners from support and query sets, and the recipes that compose them.

`Learner` adapts to support sets and is judged on query sets (Algorithm 1 of the MMAML paper).
The recipes at the end of the file, `MAML`, `MultiMAML`, `MMAML` and `LSTMLearner`, only choose
parts.
"""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import modulation as modulation_lib
from mmaml_tf.arguments import flag
from mmaml_tf.bank import Bank
from mmaml_tf.checks import as_tensor, as_value_errors, assert_index, assert_values
from mmaml_tf.episodes import (
    Episodes,
    as_mode,
    check_episodes,
    check_query,
    check_support,
)
from mmaml_tf.export import export_path, write_saved_model
from mmaml_tf.inner_loop import InnerLoop, check_steps
from mmaml_tf.losses import TaskLoss
from mmaml_tf.meta_learner import MetaLearner


class Learner(MetaLearner):
    """Learns from `Episodes`: adapts on support sets, and is judged on query sets.

    Args:
        network: see `MetaLearner`.
        inner_loop: see `MetaLearner`.
        encoder: layer from (support_x, support_y) to task embeddings `[T, E]`, or None.
        modulation: see `MetaLearner`.
        fewer_ways: for classification, whether a task may have fewer classes than the network
            has outputs; it then uses the first ones, as many as its support labels say, and the
            others stay out of the softmax.
        **kwargs: see `MetaLearner`.

    Raises:
        ValueError: when the parts do not fit together.
    """

    batch_type = Episodes
    batch_fields = 3
    settings = (*MetaLearner.settings, "fewer_ways")

    def __init__(
        self,
        network: keras.Model,
        inner_loop: InnerLoop,
        encoder: keras.layers.Layer | None = None,
        modulation: modulation_lib.Modulation | str | None = None,
        *,
        fewer_ways: bool = False,
        **kwargs,
    ):
        super().__init__(network, inner_loop, encoder, modulation, **kwargs)
        self.fewer_ways = flag("fewer_ways", fewer_ways)

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

    def require_targets(self, batch):
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

    # -- the forward pass -------------------------------------------------------------------

    def adaptation_path(self, support_x, support_y, mode=None, steps=None):
        """Adapts to the support sets.

        Args:
            support_x: `[T, K, ...]`.
            support_y: `[T, K, ...]`.
            mode: `[T]` mode of each task, or None.
            steps: number of inner steps; by default the inner loop's own.

        Returns:
            The weights before and after each inner step, `steps + 1` lists of `[T, ...]`, and
            the modulation of each block (None without one).
        """
        affine = self.modulate(support_x, support_y)
        return self._adaptation_path(support_x, support_y, mode, affine, steps), affine

    def _adaptation_path(self, support_x, support_y, mode, affine, steps=None, training=False):
        support = support_x, support_y

        def support_loss(weights, step):
            del step
            result = self._run(weights, affine, support, support_x, training, queries=False)
            return self._task_losses(support_y, result)

        tasks = support_x.shape[0] or tf.shape(support_x)[0]
        initial = self.initial_weights(tasks, mode)
        return self.inner_loop(support_loss, initial, steps, self._adapted())

    def predict_adapted(self, weights, affine, support, x):
        """Runs the adapted task network.

        Args:
            weights: one of the lists of `adaptation_path`.
            affine: the modulation it returned.
            support: (support_x, support_y) that was adapted to.
            x: `[T, N, ...]` inputs.

        Returns:
            `[T, N, ...]` predictions.
        """
        return self._run(weights, affine, support, x).outputs

    def _run(self, weights, affine, support, x, training=False, queries=True):
        """Returns the `ForwardPass` of the adapted network on support points or queries x."""
        support_x, support_y = support
        result = self._forward(weights, affine, support_x if queries else None, x, training)
        outputs = tf.cast(result.outputs, self.compute_dtype)
        if self.fewer_ways:
            outputs = _mask_absent_classes(outputs, support_y)
        return result._replace(outputs=outputs)

    def _forward(self, weights, affine, support_x, x, training):
        return self.network.run(weights, x, affine, support_x, training)

    def call(self, inputs, mode=None, steps=None):
        """Adapts to support sets and predicts for queries.

        Args:
            inputs: (support_x `[T, K, ...]`, support_y `[T, K, ...]`, query_x `[T, Q, ...]`), or
                `Episodes`.
            mode: `[T]` mode of each task, or None; by default that of the episodes.
            steps: number of inner steps; by default the inner loop's own.

        Returns:
            Predictions `[T, Q, ...]` after the last inner step.
        """
        if isinstance(inputs, Episodes):
            mode = inputs.mode if mode is None else mode
        elif not isinstance(inputs, (tuple, list)) or len(inputs) != 3:
            raise ValueError(
                f"{self.name} is called on a {type(inputs).__name__}; expected (support_x, "
                "support_y, query_x), or Episodes. To adapt to one task there is learner.adapt."
            )
        support_x, support_y, query_x = inputs[:3]
        path, affine = self.adaptation_path(support_x, support_y, mode, steps)
        return self.predict_adapted(path[-1], affine, (support_x, support_y), query_x)

    def task_losses(self, targets, predictions):
        """Returns the loss of each task `[T]`, by default the mean over its points.

        Raises:
            ValueError: before `compile`.
        """
        if not self.compiled:
            raise ValueError("the learner has no loss yet; call compile(optimizer, loss) first.")
        return self.task_loss(targets, predictions)

    def _task_losses(self, targets, result):
        """Returns the loss of each task with what the network adds to it, `[T]`."""
        losses = self.task_losses(targets, result.outputs)
        return losses if result.losses is None else losses + tf.cast(result.losses, losses.dtype)

    # -- training and evaluation by Keras -----------------------------------------------------

    def compile(self, optimizer="adam", loss="mse", **kwargs):
        """Configures training; see `MetaLearner.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a Keras loss or its name, used by the inner and the outer loop; see
                `losses.TaskLoss`.
            **kwargs: see `MetaLearner.compile`.

        Raises:
            ValueError: for a loss that does not fit the network's outputs or leaves no loss of
                each task; see also `MetaLearner.compile`.
        """
        #: the loss of each task
        self.task_loss = TaskLoss(loss)
        self._check_loss()
        super().compile(optimizer, loss, **kwargs)

    def renew_graphs(self):
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        graph = functools.partial(tf.function, autograph=False, reduce_retracing=True)
        self._adapt_graph = graph(self.adaptation_path)
        self._predict_graph = graph(self._predict_snapshot)

    def train_step(self, episodes: Episodes):
        """Takes one outer step on a batch of tasks; called by `fit`."""
        *batch, mode, origin = self._checked(self.as_batch(episodes))
        weights = self.task_weights(batch[0].shape[0] or tf.shape(batch[0])[0], mode)
        return self.outer_step([*batch, mode], weights, mode, origin, targets=batch[-1])

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

    def assert_data(self, support_x, support_y, query_x=None, query_y=None, origin=None) -> list:
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

    def modulate_batch(self, batch):
        """See `OuterStep.modulate_batch`."""
        support_x, support_y, *_ = batch
        return self.modulate(support_x, support_y, training=True)

    def outer_losses(self, batch, affine):
        """Returns the query losses `[t]` after adaptation, the predictions and new states."""
        support_x, support_y, query_x, query_y, mode = batch
        path = self._adaptation_path(support_x, support_y, mode, affine, training=True)
        result = self._run(path[-1], affine, (support_x, support_y), query_x, training=True)
        return self._task_losses(query_y, result), result.outputs, result.state

    def test_step(self, episodes: Episodes):
        """Computes the query loss after adaptation; called by `evaluate`.

        A task whose loss is not finite makes the mean loss not finite: it is not left out.
        """
        *inputs, mode, _ = self._checked(self.as_batch(episodes))
        support_x, support_y, query_x, targets = inputs
        path, affine = self.adaptation_path(support_x, support_y, mode)
        result = self._run(path[-1], affine, (support_x, support_y), query_x)
        losses = self._task_losses(targets, result)
        every = tf.ones_like(losses, tf.bool)
        return self.update_metrics(result.outputs, losses, mode, targets, every)

    def predict_step(self, episodes: Episodes):
        """Adapts to the support sets and predicts for the queries; called by `predict`."""
        episodes = self._checked(self.as_batch(episodes))
        return self.call(episodes)

    def update_metrics(self, outputs, losses, mode, targets, keep=None):
        """See `OuterStep.update_metrics`; outputs are predictions for the queries."""
        self._update_loss(losses, keep)
        self._update_by_mode(losses, mode, keep)
        # Keras's metrics have one axis of samples.
        points = [tf.reshape(a, [-1, *a.shape[2:]]) for a in (targets, outputs)]
        return self.compute_metrics(None, *points)

    # -- inference ----------------------------------------------------------------------------

    def adapt(self, support_x, support_y, mode=None, steps: int | None = None):
        """Adapts to one task or to a batch of tasks.

        Args:
            support_x: `[K, ...]` or `[T, K, ...]`.
            support_y: `[K, ...]` or `[T, K, ...]`.
            mode: the mode, or `[T]` modes; needed by `MultiMAML` alone.
            steps: number of inner steps; by default the inner loop's own.

        Returns:
            A `Predictor`: call it on `[Q, ...]` or `[T, Q, ...]` query inputs.

        Raises:
            ValueError: for wrong shapes or too few points, or a learner that is not built.
        """
        if not self.built:
            raise ValueError("the learner has no weights yet; train it, or load it from a file.")
        if not self.compiled:
            raise ValueError("the learner has no loss yet; call compile(optimizer, loss) first.")
        self.refresh()
        steps = None if steps is None else check_steps(steps)
        support_x, support_y = self._as_input(support_x), self._as_target(support_y)
        rank = len(self.support_shapes[0])
        single = support_x.shape.rank == rank - 1
        if single:
            support_x, support_y = support_x[None], support_y[None]
            mode = None if mode is None else np.reshape(mode, [1])
        check_support(support_x, support_y)
        self._check_points(support_x, support_y)
        self._check_counts(support_x.shape[1])
        mode = self._as_modes(mode, support_x.shape[0])
        with as_value_errors():
            self.assert_data(support_x, support_y)
            path, affine = self._adapt_graph(support_x, support_y, mode, steps)
        return Predictor(self, path[-1], affine, (support_x, support_y), single)

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

    def as_inputs(self, episodes: Episodes):
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
    def link(self):
        """What makes probabilities of predictions, a function, or None where they are none.

        A loss of one's own on class labels is taken to be on logits, unless the network gives
        probabilities already.
        """
        if self.task_loss.are_probabilities(self._example_outputs):
            return None
        return self.task_loss.link(self.predicts_classes)

    @property
    def target_dtype(self):
        """The type of targets, int32 for class labels; known once built."""
        return "int32" if self.predicts_classes else self.compute_dtype

    def export(self, filepath=None, format="tf_saved_model", verbose=None, path=None, **kwargs):
        """Writes a SavedModel that adapts inside the graph; see `export.write_saved_model`.

        Args:
            filepath: directory to write to.
            format: "tf_saved_model".
            verbose: whether to say where the model was written; by default not.
            path: another name of `filepath`.
            **kwargs: refused; the signature is the learner's own.

        Raises:
            ValueError: for another format, or see `export.write_saved_model`.
        """
        write_saved_model(self, export_path(filepath, format, path, kwargs))
        if verbose:
            print(f"Saved a SavedModel at {filepath or path}.")

    @property
    def snapshot_variables(self) -> list:
        """The variables that predictions depend on besides the adapted weights."""
        return self.network.variables

    def _predict_snapshot(self, weights, affine, support, x, values):
        pairs = list(zip(self.snapshot_variables, values, strict=True))
        with keras.StatelessScope(pairs):
            return self.predict_adapted(weights, affine, support, x)

    # -- serialisation --------------------------------------------------------------------------

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {"fewer_ways": self.fewer_ways}


def _mask_absent_classes(logits, support_y):
    """Takes the outputs beyond each task's largest support label out of the softmax."""
    labels = tf.reshape(tf.cast(support_y, tf.int32), tf.shape(support_y)[:2])
    ways = 1 + tf.reduce_max(labels, axis=1)
    present = tf.sequence_mask(ways, logits.shape[-1])[:, None]
    # A finite number: infinities would make the gradients of the softmax undefined.
    return tf.where(present, logits, tf.constant(-1e9, logits.dtype))


class Predictor:
    """A task network adapted to one task or a batch of tasks.

    Attributes:
        weights: the adapted weights, tensors `[T, ...]`.
    """

    def __init__(self, learner, weights, affine, support, single):
        self.weights = weights
        self._learner = learner
        self._affine = affine
        self._support = support
        self._single = single
        # What the network does not adapt may change when training goes on.
        self._snapshot = [tf.identity(tf.convert_to_tensor(v)) for v in learner.snapshot_variables]

    def __call__(self, query_x):
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


@keras.saving.register_keras_serializable("mmaml_tf")
class MAML(Learner):
    """Model-agnostic meta-learning (Finn et al. 2017): one initialisation for all tasks.

    Args:
        network: see `Learner`.
        inner_loop: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, inner_loop, **kwargs):
        for part in ("encoder", "modulation"):
            if kwargs.pop(part, None) is not None:
                raise ValueError(f"MAML has no {part}; use MMAML.")
        super().__init__(network, inner_loop, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MMAML(Learner):
    """Multimodal MAML: modulates the initialisation by what the support set shows.

    Args:
        network: see `Learner`.
        encoder: see `Learner`.
        modulation: see `Learner`.
        inner_loop: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, encoder, modulation="film", inner_loop=None, **kwargs):
        if encoder is None or modulation is None:
            raise ValueError("MMAML needs an encoder and a modulation; use MAML without them.")
        inner_loop = InnerLoop() if inner_loop is None else inner_loop
        super().__init__(network, inner_loop, encoder, modulation, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class LSTMLearner(MMAML):
    """Encoder and modulated network trained to predict without any inner step.

    Args:
        network: see `Learner`.
        encoder: see `Learner`.
        modulation: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, encoder, modulation="film", **kwargs):
        kwargs.pop("inner_loop", None)
        super().__init__(network, encoder, modulation, InnerLoop(steps=0), **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiMAML(Bank, Learner):
    """One independent MAML per mode, chosen by each task's true mode; see `Bank`."""
