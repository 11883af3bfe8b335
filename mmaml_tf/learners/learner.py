"""Learners from support and query sets (Algorithm 1 of the MMAML paper)."""

import functools
from collections.abc import Sequence
from os import PathLike
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf import modulation as modulation_lib
from mmaml_tf.arguments import flag
from mmaml_tf.checks import as_value_errors
from mmaml_tf.episodes import Episodes, check_support
from mmaml_tf.export import write_saved_model
from mmaml_tf.inner_loop import InnerLoop, check_steps
from mmaml_tf.learners import classes
from mmaml_tf.learners.episode_inputs import EpisodeInputs
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.learners.predictor import Predictor
from mmaml_tf.losses import TaskLoss
from mmaml_tf.names import checked


class Learner(EpisodeInputs):
    """Learns from `Episodes`: adapts on support sets, and is judged on query sets.

    Args:
        network: see `MetaLearner`.
        encoder: layer from (support_x, support_y) to task embeddings `[T, E]`, or None.
        modulation: see `MetaLearner`.
        inner_loop: see `MetaLearner`.
        fewer_ways: for classification, whether a task may have fewer classes than the network
            has outputs; it then uses the first ones, as many as its support labels say, and the
            others stay out of the softmax.
        head: what the output layer of a classifier starts from in every task: "learned" weights
            like all others, or the "prototypes" of the task's classes, with which the logits are
            minus the squared distances to the mean features of each class (ProtoMAML;
            Triantafillou et al. 2020). The outer gradient goes through the prototypes; the
            learned weights of the output layer then have no effect.
        **kwargs: see `MetaLearner`.

    Raises:
        ValueError: when the parts do not fit together.
    """

    settings = (*MetaLearner.settings, "fewer_ways", "head")

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer | None = None,
        modulation: modulation_lib.Modulation | str | None = None,
        inner_loop: InnerLoop | None = None,
        fewer_ways: bool = False,
        head: str = "learned",
        **kwargs,
    ):
        super().__init__(
            network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **kwargs
        )
        self.fewer_ways = flag("fewer_ways", fewer_ways)
        if head not in ("learned", "prototypes"):
            raise ValueError(f'head is {head!r}; expected "learned" or "prototypes".')
        self.head = head

    def _check_outputs(self, support_x, support_y):
        super()._check_outputs(support_x, support_y)
        if self.head == "prototypes":
            ways = self.output_shape_per_point[-1] if self.predicts_classes else None
            classes.check_head(self.network, support_x[2:], ways)

    # -- the forward pass -------------------------------------------------------------------

    def adaptation_path(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        mode: tf.Tensor | None = None,
        steps: int | None = None,
    ) -> tuple[list, Any]:
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

    def _adaptation_path(
        self, support_x, support_y, mode, affine, steps=None, training=False, first_order=None
    ):
        support = support_x, support_y

        def support_loss(weights, step):
            del step
            result = self._run(weights, affine, support, support_x, training, queries=False)
            return self._task_losses(support_y, result)

        tasks = support_x.shape[0] or tf.shape(support_x)[0]
        initial = self.initial_weights(tasks, mode)
        if self.head == "prototypes":
            initial = self._with_prototypes(initial, affine, support, training)
        return self.inner_loop(support_loss, initial, steps, self._adapted(), mode, first_order)

    def _with_prototypes(self, weights, affine, support, training):
        """Returns weights whose output layer is that of the support set's prototypes."""
        support_x, support_y = support
        features = self.network.head_inputs(weights, support_x, affine, training)
        ways = self.output_shape_per_point[-1]
        head = classes.head_of_prototypes(classes.prototypes(features, support_y, ways))
        given = dict(zip(map(id, self.network.head), head, strict=True))
        pairs = zip(self.network.trainable_variables, weights, strict=True)
        return [given.get(id(v), w) for v, w in pairs]

    def predict_adapted(
        self,
        weights: Sequence,
        affine: Sequence | None,
        support: tuple[tf.Tensor, tf.Tensor],
        x: tf.Tensor,
    ) -> tf.Tensor:
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
            outputs = classes.mask_absent_classes(outputs, support_y)
        return result._replace(outputs=outputs)

    def _forward(self, weights, affine, support_x, x, training):
        return self.network.run(weights, x, affine, support_x, training)

    def call(
        self, inputs: Episodes | Sequence, mode: tf.Tensor | None = None, steps: int | None = None
    ) -> tf.Tensor:
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

    def task_losses(self, targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
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

    def compile(
        self, optimizer: keras.optimizers.Optimizer | str = "adam", loss: Any = "mse", **kwargs
    ) -> None:
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

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        graph = functools.partial(tf.function, autograph=False, reduce_retracing=True)
        self._adapt_graph = graph(self.adaptation_path)
        self._predict_graph = graph(self._predict_snapshot)

    def train_step(self, episodes: Episodes) -> dict:
        """Takes one outer step on a batch of tasks; called by `fit`."""
        *batch, mode, origin = self._checked(self.as_batch(episodes))
        tasks = batch[0].shape[0] or tf.shape(batch[0])[0]
        targets, batch = batch[-1], [*batch, mode]
        if self.inner_loop.multi_step_until is not None:
            # All tasks have the same, which go with them wherever a batch is divided.
            of_steps = self.inner_loop.step_weights(self.optimizer.iterations, self.compute_dtype)
            batch.append(tf.tile(of_steps[None], [tasks, 1]))
        return self.outer_step(batch, mode, origin, targets)

    def modulate_batch(self, batch: Sequence) -> Any:
        """See `OuterStep.modulate_batch`."""
        support_x, support_y, *_ = batch
        return self.modulate(support_x, support_y, training=True)

    def outer_losses(self, batch: Sequence, affine: Sequence | None, phase: Any = None) -> tuple:
        """Returns the query losses `[t]` after adaptation, the predictions and new states."""
        support_x, support_y, query_x, query_y, mode, *of_steps = batch
        first_order, multi_step = phase or (None, False)
        path = self._adaptation_path(
            support_x, support_y, mode, affine, training=True, first_order=first_order
        )
        support = support_x, support_y
        measured = path[1:] if multi_step else path[-1:]
        results = [self._run(w, affine, support, query_x, training=True) for w in measured]
        losses = [self._task_losses(query_y, result) for result in results]
        total = losses[-1]
        if multi_step:
            total = tf.reduce_sum(of_steps[0] * tf.stack(losses, axis=1), axis=1)
        return total, results[-1].outputs, results[-1].state

    def test_step(self, episodes: Episodes) -> dict:
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

    def predict_step(self, episodes: Episodes) -> tf.Tensor:
        """Adapts to the support sets and predicts for the queries; called by `predict`."""
        episodes = self._checked(self.as_batch(episodes))
        return self.call(episodes)

    def update_metrics(
        self,
        outputs: tf.Tensor,
        losses: tf.Tensor,
        mode: tf.Tensor | None,
        targets: tf.Tensor,
        keep: tf.Tensor | None = None,
    ) -> dict:
        """See `OuterStep.update_metrics`; outputs are predictions for the queries."""
        self._update_loss(losses, keep)
        self._update_by_mode(losses, mode, keep)
        # Keras's metrics have one axis of samples.
        points = [tf.reshape(a, [-1, *a.shape[2:]]) for a in (targets, outputs)]
        return self.compute_metrics(None, *points)

    # -- inference ----------------------------------------------------------------------------

    def adapt(
        self,
        support_x: ArrayLike,
        support_y: ArrayLike,
        mode: ArrayLike | None = None,
        steps: int | None = None,
    ) -> Predictor:
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

    def write_export(self, path: str | PathLike) -> None:
        """See `MetaLearner.export` and `export.write_saved_model`."""
        write_saved_model(self, path)

    @property
    def snapshot_variables(self) -> list:
        """The variables that predictions depend on besides the adapted weights."""
        return self.network.variables

    def _predict_snapshot(self, weights, affine, support, x, values):
        pairs = list(zip(self.snapshot_variables, values, strict=True))
        with keras.StatelessScope(pairs):
            return self.predict_adapted(weights, affine, support, x)

    # -- serialisation --------------------------------------------------------------------------

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"fewer_ways": self.fewer_ways, "head": self.head}
