"""Learners from support and query sets, and the recipes that compose them.

`Learner` adapts to support sets and is judged on query sets (Algorithm 1 of the MMAML paper).
The recipes at the end of the file, `MAML`, `MultiMAML`, `MMAML` and `LSTMLearner`, only choose
parts.
"""

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import modulation as modulation_lib
from mmaml_tf.bank import Bank
from mmaml_tf.episodes import Episodes, check_episodes, check_query, check_support
from mmaml_tf.export import write_saved_model
from mmaml_tf.inner_loop import InnerLoop
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
        self.fewer_ways = fewer_ways
        self._make_graphs()

    def _make_graphs(self):
        self._adapt_graph = tf.function(
            self.adaptation_path, autograph=False, reduce_retracing=True
        )
        self._predict_graph = tf.function(
            self.predict_adapted, autograph=False, reduce_retracing=True
        )

    # -- building ---------------------------------------------------------------------------

    def _embedding_size(self, support_x, support_y):
        points = [
            tf.zeros((1, 2, *shape[2:]), self.compute_dtype) for shape in (support_x, support_y)
        ]
        embedding = self.encoder(*points)
        if len(embedding.shape) != 2 or embedding.shape[-1] is None:
            raise ValueError(
                f"the encoder {self.encoder.name!r} gives embeddings of shape "
                f"{tuple(embedding.shape)}; expected [T, E] with a known E."
            )
        return embedding.shape[-1]

    def _check_outputs(self, support_x, support_y):
        """Refuses outputs that the loss would silently broadcast against the targets."""
        x = tf.zeros((1, 1, *support_x[2:]), self.compute_dtype)
        outputs = tuple(self.network.functional_call(self._shared_weights(), x).shape[2:])
        targets = tuple(support_y[2:])
        # Integer class labels have no axis of classes, or one of size 1.
        labels = outputs[-1:] > (1,) and targets in (outputs[:-1], (*outputs[:-1], 1))
        if outputs != targets and not labels:
            raise ValueError(
                f"the task network gives outputs of shape {outputs} per point, the targets "
                f"have {targets}; they must be equal (or the targets labels of two or more "
                "classes)."
            )
        self.predicts_classes = labels

    def build_for(self, episodes: Episodes) -> None:
        """Creates all weights for episodes like these (tensors, arrays or specs)."""
        check_episodes(episodes)
        if not self.built:
            self.build((tuple(episodes.support_x.shape), tuple(episodes.support_y.shape)))

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

    def _adaptation_path(self, support_x, support_y, mode, affine, steps=None):
        support = support_x, support_y

        def support_loss(weights, step):
            del step
            return self.task_losses(
                support_y, self.predict_adapted(weights, affine, support, support_x)
            )

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
        support_x, support_y = support
        outputs = self._outputs(weights, affine, support_x, x)
        return _mask_absent_classes(outputs, support_y) if self.fewer_ways else outputs

    def _outputs(self, weights, affine, support_x, x):
        given = {"support_x": support_x} if self.network.uses_support else {}
        return self.network.functional_call(weights, x, affine, **given)

    def call(self, inputs, mode=None, steps=None):
        """Adapts to support sets and predicts for queries.

        Args:
            inputs: (support_x `[T, K, ...]`, support_y `[T, K, ...]`, query_x `[T, Q, ...]`).
            mode: `[T]` mode of each task, or None.
            steps: number of inner steps; by default the inner loop's own.

        Returns:
            Predictions `[T, Q, ...]` after the last inner step.
        """
        support_x, support_y, query_x = inputs
        path, affine = self.adaptation_path(support_x, support_y, mode, steps)
        return self.predict_adapted(path[-1], affine, (support_x, support_y), query_x)

    def task_losses(self, targets, predictions):
        """Returns the loss of each task `[T]`, the mean over its points."""
        if not self.compiled:
            raise ValueError("the learner has no loss yet; call compile(optimizer, loss) first.")
        losses = self._point_loss(targets, predictions)
        return tf.reduce_mean(losses, axis=list(range(1, losses.shape.rank)))

    # -- training and evaluation by Keras -----------------------------------------------------

    def compile(self, optimizer="adam", loss="mse", **kwargs):
        """Configures training; see `MetaLearner.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a Keras loss or its name, used by the inner and the outer loop.
            **kwargs: see `MetaLearner.compile`.
        """
        super().compile(optimizer, loss, **kwargs)
        loss = keras.losses.get(loss)
        # A Loss instance reduces over tasks; its `call` gives the unreduced values.
        self._point_loss = loss.call if isinstance(loss, keras.losses.Loss) else loss
        self._make_graphs()  # what was traced has the earlier loss

    def train_step(self, episodes: Episodes):
        """Takes one outer step on a batch of tasks; called by `fit`."""
        tasks = episodes.support_x.shape[0] or tf.shape(episodes.support_x)[0]
        weights = self.task_weights(tasks, episodes.mode)
        inputs = self.as_inputs(episodes)
        return self.outer_step(
            [*inputs, episodes.mode], weights, episodes.mode, episodes.origin, targets=inputs[-1]
        )

    def modulate_batch(self, batch):
        """See `MetaLearner.modulate_batch`."""
        support_x, support_y, *_ = batch
        return self.modulate(support_x, support_y)

    def outer_losses(self, batch, affine):
        """Returns the query losses `[t]` after adaptation, and the predictions."""
        support_x, support_y, query_x, query_y, mode = batch
        path = self._adaptation_path(support_x, support_y, mode, affine)
        predictions = self.predict_adapted(path[-1], affine, (support_x, support_y), query_x)
        return self.task_losses(query_y, predictions), predictions

    def test_step(self, episodes: Episodes):
        """Computes the query loss after adaptation; called by `evaluate`."""
        *inputs, targets = self.as_inputs(episodes)
        predictions = self.call(inputs, mode=episodes.mode)
        losses = self.task_losses(targets, predictions)
        return self.update_metrics(predictions, losses, episodes.mode, targets)

    def update_metrics(self, outputs, losses, mode, targets):
        """See `MetaLearner.update_metrics`; outputs are predictions for the queries."""
        self._update_loss(losses)
        self._update_by_mode(losses, mode)
        return self.compute_metrics(None, targets, outputs)

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
        support_x, support_y = self._as_input(support_x), self._as_target(support_y)
        rank = len(self.support_shapes[0])
        single = support_x.shape.rank == rank - 1
        if single:
            support_x, support_y = support_x[None], support_y[None]
            mode = None if mode is None else np.reshape(mode, [1])
        check_support(support_x, support_y)
        for name, given, built in zip(
            ("support_x", "support_y"), (support_x, support_y), self.support_shapes, strict=True
        ):
            if tuple(given.shape[2:]) != tuple(built[2:]):
                raise ValueError(
                    f"{name} has points of shape {tuple(given.shape[2:])}; this learner was "
                    f"built for {tuple(built[2:])}."
                )
        mode = self._as_modes(mode, support_x.shape[0])
        path, affine = self._adapt_graph(support_x, support_y, mode, steps)
        return Predictor(self, path[-1], affine, (support_x, support_y), single)

    def _as_input(self, array):
        return tf.cast(tf.convert_to_tensor(array), self.compute_dtype)

    def _as_target(self, array, name="support_y"):
        array = tf.convert_to_tensor(array)
        if self.predicts_classes and not array.dtype.is_integer:
            raise ValueError(f"{name} has type {array.dtype.name}; class labels are integers.")
        return tf.cast(array, self.target_dtype)

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
            self._as_input(episodes.query_x),
            None if episodes.query_y is None else self._as_target(episodes.query_y, "query_y"),
        )

    @property
    def target_dtype(self):
        """The type of targets, int32 for class labels; known once built."""
        return "int32" if self.predicts_classes else self.compute_dtype

    def export(self, path: str) -> None:
        """Writes a SavedModel that adapts inside the graph; see `export.write_saved_model`."""
        write_saved_model(self, path)

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

    def __call__(self, query_x):
        """Predicts for `[Q, ...]` (one task) or `[T, Q, ...]` inputs.

        Raises:
            ValueError: when the queries do not fit the support set.
        """
        query_x = self._learner._as_input(query_x)
        if self._single:
            query_x = query_x[None]
        check_query(self._support[0], query_x)
        predictions = self._learner._predict_graph(
            self.weights, self._affine, self._support, query_x
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
