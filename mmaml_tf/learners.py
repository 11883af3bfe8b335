"""Learners: compositions of task network, encoder, modulation and inner loop.

`Learner` owns the training step: outer `tf.GradientTape`s around the encoder, the modulation and
an inner loop that holds a tape for each of its steps (Algorithm 1 of the MMAML paper). The
recipes at the end of the file, `MAML`, `MultiMAML`, `MMAML` and `LSTMLearner`, only choose parts.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division, layers
from mmaml_tf import modulation as modulation_lib
from mmaml_tf import networks as networks_lib
from mmaml_tf.episodes import Episodes, check_episodes, check_query, check_support
from mmaml_tf.export import write_saved_model
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.nonfinite import StopOnNonFinite, UpdateGuard

_serialize = keras.saving.serialize_keras_object
_deserialize = keras.saving.deserialize_keras_object


class Learner(keras.Model):
    """Learns an initialisation, and how to modulate it, from which few gradient steps suffice.

    Args:
        network: the task network, a `networks.TaskNetwork` or any built Keras model.
        inner_loop: the adaptation; only the network's weights take part in it.
        encoder: layer from (support_x, support_y) to task embeddings `[T, E]`, or None.
        modulation: a `modulation.Modulation` or its name, or None; needs an encoder.
        outer_clip: bound on the norm of the outer gradient of each group (the task network;
            encoder and modulation together), or None.
        on_nonfinite: "stop" or "skip", see `nonfinite.UpdateGuard`.
        modes: names of the task modes, to report losses by mode.
        fewer_ways: for classification, whether a task may have fewer classes than the network
            has outputs; it then uses the first ones, as many as its support labels say, and the
            others stay out of the softmax.

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
        outer_clip: float | None = 2.0,
        on_nonfinite: str = "stop",
        modes: Sequence[str] = (),
        fewer_ways: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if (encoder is None) != (modulation is None):
            raise ValueError("give both an encoder and a modulation, or neither.")
        if outer_clip is not None and not outer_clip > 0:
            raise ValueError(f"outer_clip is {outer_clip}; it must be positive, or None.")
        self.network = networks_lib.as_task_network(network)
        self.inner_loop = inner_loop
        self.encoder = encoder
        self.modulation = None if modulation is None else modulation_lib.get(modulation)
        self.outer_clip = outer_clip
        self.on_nonfinite = on_nonfinite
        self.modes = tuple(modes)
        self.fewer_ways = fewer_ways
        self.loss_by_mode = [keras.metrics.Mean(name=f"loss_{mode}") for mode in self.modes]
        self._adapt_graph = tf.function(
            self.adaptation_path, autograph=False, reduce_retracing=True
        )
        self._predict_graph = tf.function(
            self.predict_adapted, autograph=False, reduce_retracing=True
        )

    #: whether adaptation needs to be told each task's mode
    needs_mode = False

    # -- building ---------------------------------------------------------------------------

    def build(self, input_shape):
        """Creates all weights.

        Args:
            input_shape: shapes of (support_x, support_y) or (support_x, support_y, query_x);
                only the axes after T and K matter.

        Raises:
            ValueError: when encoder, modulation and network do not fit these shapes.
        """
        support_x, support_y = (tuple(shape) for shape in input_shape[:2])
        self._build_networks(support_x)
        if self.encoder is not None:
            if not self.encoder.built:
                self.encoder.build(support_x, support_y)
            widths = self.network.modulated_widths
            self.modulation.build_for(self._embedding_size(support_x, support_y), widths)
        self.predicts_classes = self._check_outputs(support_x, support_y)
        watched = self._network_variables() + self._modulating_variables()
        names = ["loss", *(v.path for v in watched)]
        self.guard = UpdateGuard(self.on_nonfinite, names, len(self.modes), name="guard")
        self.support_shapes = (support_x, support_y)
        self.built = True

    def _build_networks(self, support_x):
        if not self.network.built:
            self.network.build(support_x)

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
        """Refuses outputs that the loss would silently broadcast against the targets.

        Returns whether the targets are class labels.
        """
        x = tf.zeros((1, 1, *support_x[2:]), self.compute_dtype)
        outputs = self.network.functional_call(self._shared_weights(), x).shape[2:]
        targets = support_y[2:]
        # Integer class labels have no axis of classes, or one of size 1.
        labels = len(outputs) - len(targets) == 1 or (targets[-1:] == (1,) and outputs[-1] > 1)
        if tuple(outputs) != tuple(targets) and not labels:
            raise ValueError(
                f"the task network gives outputs of shape {tuple(outputs)} per point, the targets "
                f"have {tuple(targets)}; they must be equal (or the targets class labels)."
            )
        return labels

    def build_for(self, episodes: Episodes) -> None:
        """Creates all weights for episodes like these (tensors, arrays or specs)."""
        check_episodes(episodes)
        if not self.built:
            self.build((tuple(episodes.support_x.shape), tuple(episodes.support_y.shape)))

    def get_build_config(self):
        """Returns what `build_from_config` needs."""
        return {"input_shape": [[None, None, *shape[2:]] for shape in self.support_shapes]}

    def build_from_config(self, config):
        """Builds a learner that was loaded from a file."""
        self.build(config["input_shape"])

    # -- the forward pass -------------------------------------------------------------------

    def embed(self, support_x, support_y):
        """Returns task embeddings `[T, E]`; raises ValueError for a learner without encoder."""
        if self.encoder is None:
            raise ValueError(f"{type(self).__name__} has no encoder, hence no task embedding.")
        return self.encoder(support_x, support_y)

    def initial_weights(self, tasks, mode=None):
        """Returns the weights each task starts from, as tensors `[T, ...]`.

        Those that the inner loop does not adapt lack the task axis.

        Args:
            tasks: number of tasks T.
            mode: `[T]` mode of each task; only `MultiMAML` uses it.
        """
        del mode
        return [
            tf.tile(v[None], [tasks] + [1] * len(v.shape)) if adapted else v
            for v, adapted in zip(self._shared_weights(), self._adapted(), strict=True)
        ]

    def _adapted(self):
        """Returns for each of the network's weights whether the inner loop adapts it."""
        head = {id(v) for v in self.network.head} if self.inner_loop.head_only else None
        return [head is None or id(v) in head for v in self.network.trainable_variables]

    def _shared_weights(self):
        return [tf.convert_to_tensor(v) for v in self.network.trainable_variables]

    def modulate(self, support_x, support_y):
        """Returns the modulation of each block for these support sets, None without one.

        Once per task: every inner step and the query see the same modulation.
        """
        if self.modulation is None:
            return None
        return self.modulation(self.embed(support_x, support_y))

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

    def compile(
        self,
        optimizer="adam",
        loss="mse",
        jit_compile="auto",
        shards="auto",
        tasks_at_once="auto",
        **kwargs,
    ):
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a Keras loss or its name, used by the inner and the outer loop.
            jit_compile: whether XLA compiles the training step; "auto" does wherever the task
                network allows it, on every device alike.
            shards: parts of a batch that run at the same time, or "auto"; see `division`.
            tasks_at_once: tasks of a shard that are worked on together, the others following in
                a loop inside the graph, or "auto"; fewer need less memory. See `division`.
            **kwargs: passed on to `keras.Model.compile`.

        Raises:
            ValueError: if XLA is asked for and the task network cannot be compiled by it, or
                for shards or tasks_at_once that are no positive numbers.
        """
        division.check(shards, tasks_at_once)
        supports_xla = self.network.supports_xla
        if jit_compile == "auto":
            jit_compile = supports_xla and not kwargs.get("run_eagerly", False)
        if jit_compile and not supports_xla:
            raise ValueError(
                f"jit_compile=True, but XLA cannot compile {type(self.network).__name__}, which "
                "vectorises a Keras model over tasks; use jit_compile=False or 'auto', or write "
                "the network as a mmaml_tf.networks.TaskNetwork."
            )
        # XLA compiles the parts of a step, so that the shards are programs that run concurrently.
        super().compile(optimizer=optimizer, loss=loss, jit_compile=False, **kwargs)
        self.xla = bool(jit_compile)
        self._division = {"shards": shards, "tasks_at_once": tasks_at_once}
        loss = keras.losses.get(loss)
        # A Loss instance reduces over tasks; its `call` gives the unreduced values.
        self._point_loss = loss.call if isinstance(loss, keras.losses.Loss) else loss
        self._shard_gradients, self._update = (
            function
            if self.run_eagerly
            else tf.function(function, autograph=False, jit_compile=self.xla)
            for function in (self._losses_and_gradients, self._apply)
        )

    def compile_from_config(self, config):
        """Compiles a learner that was loaded from a file."""
        self.compile(**_deserialize(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_compile_config(self):
        """Returns what `compile_from_config` needs."""
        # Keras restores a class that overrides `compile` only if it overrides this too.
        config = super().get_compile_config()
        return config and config | {"jit_compile": self.xla, **self._division}

    def fit(self, x=None, *args, callbacks=None, **kwargs):
        """Trains on a dataset of `Episodes`; see `keras.Model.fit`.

        Raises:
            ValueError: for data that are no episodes, or a learner that is not compiled.
            NonFiniteError: when a loss or meta-gradient is not finite (see `on_nonfinite`).
        """
        if not isinstance(x, tf.data.Dataset):
            raise ValueError(f"fit takes a tf.data.Dataset of Episodes, got {type(x).__name__}.")
        if not self.compiled:
            raise ValueError("the learner is not compiled; call compile(optimizer, loss) first.")
        self.build_for(x.element_spec)
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        kwargs.setdefault("shuffle", False)  # the order of a dataset is its own
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        return super().fit(x, *args, callbacks=[StopOnNonFinite(), *callbacks], **kwargs)

    def train_step(self, episodes: Episodes):
        """Takes one outer step on a batch of tasks; called by `fit`."""
        tasks = episodes.support_x.shape[0]
        parts = self._divide(tasks)
        weights = self.task_weights(episodes)
        arrays = [*episodes[:4], episodes.mode, weights]
        shards = [
            self._shard_gradients(*shard, groups=parts.groups)
            for shard in division.split(arrays, parts.shards)
        ]
        losses, predictions, gradients = zip(*shards, strict=True)
        return self._update(
            [tf.add_n(of_shards) for of_shards in zip(*gradients, strict=True)],
            tf.concat(losses, axis=0),
            tf.concat(predictions, axis=0),
            weights,
            episodes.query_y,
            episodes.mode,
            episodes.origin,
        )

    def _divide(self, tasks):
        if not self.xla and self._division == {"shards": "auto", "tasks_at_once": "auto"}:
            return division.Division()
        weights = self.network.trainable_variables
        size = sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in weights)
        return division.Division.of(tasks, size, **self._division)

    def _losses_and_gradients(self, support_x, support_y, query_x, query_y, mode, weights, groups):
        """Returns losses `[T]`, predictions and the outer gradient of Σ weights·losses."""
        arrays = support_x, support_y, query_x, query_y, mode, weights
        with layers.compiled_by_xla(self.xla):
            return self._divided_gradients(arrays, groups)

    def _divided_gradients(self, arrays, groups):
        # The encoder sees all tasks at once, the inner loop one group after the other; the chain
        # rule joins them where the modulation enters.
        support_x, support_y, *_, weights = arrays
        modulators = [v.value for v in self._modulating_variables()]
        adapted = [v.value for v in self._network_variables()]
        with tf.GradientTape(watch_accessed_variables=False) as modulating:
            modulating.watch(modulators)
            affine = self.modulate(support_x, support_y)
        # Blocks without modulation, and modulations that do not shift, have None.
        tensors = [t for t in tf.nest.flatten(affine) if t is not None]

        def group_gradients(support_x, support_y, query_x, query_y, mode, weights, *tensors):
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch([adapted, tensors])
                given = iter(tensors)
                own = tf.nest.map_structure(lambda t: None if t is None else next(given), affine)
                path = self._adaptation_path(support_x, support_y, mode, own)
                support = support_x, support_y
                predictions = self.predict_adapted(path[-1], own, support, query_x)
                losses = self.task_losses(query_y, predictions)
                loss = tf.reduce_sum(weights * losses)
            gradients = outer.gradient(loss, [*adapted, *tensors], unconnected_gradients="zero")
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            by_task = losses, predictions, *gradients[len(adapted) :]
            return by_task, gradients[: len(adapted)]

        (losses, predictions, *of_tensors), gradients = division.map_groups(
            group_gradients,
            [*arrays, *tensors],
            groups,
            dtypes=(
                (weights.dtype, weights.dtype, *(t.dtype for t in tensors)),
                [v.dtype for v in adapted],
            ),
        )
        if modulators:
            of_modulators = modulating.gradient(
                tensors, modulators, of_tensors, unconnected_gradients="zero"
            )
            gradients += [tf.convert_to_tensor(g) for g in of_modulators]
        return losses, predictions, gradients

    def _network_variables(self):
        of_modulation = {id(v) for v in self._modulating_variables()}
        return [v for v in self.trainable_variables if id(v) not in of_modulation]

    def _modulating_variables(self):
        if self.encoder is None:
            return []
        return self.encoder.trainable_variables + self.modulation.trainable_variables

    def _apply(self, gradients, losses, predictions, weights, query_y, mode, origin):
        """Clips and applies the outer gradient, and returns the metrics."""
        variables = self._network_variables() + self._modulating_variables()
        gradients, finite = self._clip(gradients, variables)
        loss = tf.reduce_sum(weights * losses)
        apply = self.guard.allow(
            [tf.math.is_finite(loss), *finite], tf.math.is_finite(losses), mode, origin
        )

        def update():
            self.optimizer.apply(gradients, variables)
            return True

        tf.cond(apply, update, lambda: False)
        return self._update_metrics(query_y, mode, predictions, losses)

    def test_step(self, episodes: Episodes):
        """Computes the query loss after adaptation; called by `evaluate`."""
        predictions = self.call(
            (episodes.support_x, episodes.support_y, episodes.query_x), mode=episodes.mode
        )
        losses = self.task_losses(episodes.query_y, predictions)
        return self._update_metrics(episodes.query_y, episodes.mode, predictions, losses)

    def task_weights(self, episodes: Episodes):
        """Returns the weight of each task's loss in the outer loss, `[T]`: that of their mean."""
        tasks = tf.shape(episodes.support_x)[0]
        return tf.fill([tasks], 1 / tf.cast(tasks, self.compute_dtype))

    def gradient_groups(self) -> list[list]:
        """Returns the groups of variables whose outer gradients are clipped separately."""
        return [self.network.trainable_variables, *filter(None, [self._modulating_variables()])]

    def _clip(self, gradients, variables):
        """Clips each group by its norm; returns the gradients and whether each is finite."""
        names = [id(v) for v in variables]
        clipped = dict(zip(names, gradients, strict=True))
        finite = {name: tf.reduce_all(tf.math.is_finite(g)) for name, g in clipped.items()}
        for group in self.gradient_groups():
            names_of_group = [id(v) for v in group]
            own = [clipped[name] for name in names_of_group]
            norm = tf.linalg.global_norm(own)
            # The squares of large gradients overflow, here and in Adam, before they do themselves.
            overflow = ~tf.math.is_finite(norm)
            overflow &= tf.reduce_all([finite[name] for name in names_of_group])
            if self.outer_clip is not None:
                own, _ = tf.clip_by_global_norm(own, self.outer_clip, use_norm=norm)
            clipped |= dict(zip(names_of_group, own, strict=True))
            finite |= {name: finite[name] & ~overflow for name in names_of_group}
        return [clipped[name] for name in names], [finite[name] for name in names]

    def _update_metrics(self, query_y, mode, predictions, losses):
        finite = tf.math.is_finite(losses)
        losses = tf.where(finite, losses, tf.zeros_like(losses))
        weights = tf.cast(finite, losses.dtype)
        self._loss_tracker.update_state(losses, sample_weight=weights)
        if mode is not None:
            for index, metric in enumerate(self.loss_by_mode):
                of_mode = tf.cast(mode == index, losses.dtype)
                metric.update_state(losses, sample_weight=weights * of_mode)
        return self.compute_metrics(None, query_y, predictions)

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

    def _as_modes(self, mode, tasks):
        """Returns `[T]` modes as a tensor, checked, or None."""
        if mode is None:
            return None
        mode = np.asarray(mode)
        if mode.shape != (tasks,) or not np.issubdtype(mode.dtype, np.integer):
            raise ValueError(
                f"mode has shape {mode.shape} and type {mode.dtype}; expected one integer for each "
                f"of the {tasks} tasks."
            )
        if self.needs_mode and not np.all((mode >= 0) & (mode < len(self.modes))):
            raise ValueError(
                f"mode is {mode.tolist()}; expected indices in {self.modes}, from 0 to "
                f"{len(self.modes) - 1}."
            )
        return tf.convert_to_tensor(mode, tf.int32)

    def _as_input(self, array):
        return tf.cast(tf.convert_to_tensor(array), self.compute_dtype)

    def _as_target(self, array):
        array = tf.convert_to_tensor(array)
        if self.predicts_classes and not array.dtype.is_integer:
            raise ValueError(f"support_y has type {array.dtype.name}; class labels are integers.")
        return tf.cast(array, self.target_dtype)

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
        return {
            "network": _serialize(self.network),
            "inner_loop": _serialize(self.inner_loop),
            "encoder": _serialize(self.encoder),
            "modulation": _serialize(self.modulation),
            "outer_clip": self.outer_clip,
            "on_nonfinite": self.on_nonfinite,
            "modes": list(self.modes),
            "fewer_ways": self.fewer_ways,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """Makes a learner from what `get_config` returned."""
        parts = ("network", "networks", "inner_loop", "encoder", "modulation")
        return cls(**{k: _deserialize(v) if k in parts else v for k, v in config.items()})


def _mask_absent_classes(logits, support_y):
    """Takes the outputs beyond each task's largest support label out of the softmax."""
    ways = 1 + tf.reduce_max(tf.cast(support_y, tf.int32), axis=1)
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
class MultiMAML(Learner):
    """One independent MAML per mode, chosen by each task's true mode.

    The outer loss is the sum over modes of the mean over that mode's tasks, and each network's
    gradient is clipped on its own, so that training the bank equals training its members apart.

    Args:
        networks: one task network per mode, initialised independently.
        inner_loop: see `Learner`.
        modes: names of the modes, one per network.
        **kwargs: see `Learner`.
    """

    needs_mode = True

    def __init__(self, networks, inner_loop, modes, **kwargs):
        networks = list(networks)
        if len(networks) != len(modes) or not networks:
            raise ValueError(
                f"{len(networks)} networks for {len(modes)} modes; MultiMAML needs one per mode."
            )
        for part in ("encoder", "modulation"):
            if kwargs.pop(part, None) is not None:
                raise ValueError(f"MultiMAML has no {part}; use MMAML.")
        super().__init__(networks[0], inner_loop, modes=modes, **kwargs)
        others = [networks_lib.as_task_network(network) for network in networks[1:]]
        self.networks = [self.network, *others]

    @classmethod
    def from_learners(cls, learners: Sequence[Learner], modes: Sequence[str]) -> "MultiMAML":
        """Joins MAML learners, each trained on one mode, into a bank.

        Args:
            learners: built learners that share network architecture and inner loop.
            modes: the mode each was trained on.
        """
        first = learners[0]
        bank = cls(
            [learner.network for learner in learners],
            first.inner_loop,
            modes,
            outer_clip=first.outer_clip,
            on_nonfinite=first.on_nonfinite,
        )
        bank.build(first.support_shapes)
        return bank

    def _build_networks(self, support_x):
        for network in self.networks:
            if not network.built:
                network.build(support_x)

    def initial_weights(self, tasks, mode=None):
        """See `Learner.initial_weights`; raises ValueError when the modes are not given."""
        del tasks
        choice = self._choice(mode)
        banks = zip(*(network.trainable_variables for network in self.networks), strict=True)
        return [tf.tensordot(choice, tf.stack([v.value for v in bank]), axes=1) for bank in banks]

    def _choice(self, mode):
        """Returns the one-hot choice of each task's network, `[T, M]`."""
        if mode is None:
            raise ValueError(
                "MultiMAML chooses a network by each task's mode, but no mode was given; pass "
                f"mode=..., the index in {self.modes}."
            )
        return tf.one_hot(mode, len(self.networks), dtype=tf.as_dtype(self.compute_dtype))

    def task_weights(self, episodes):
        """Returns the weights of the sum of the modes' mean losses."""
        of_mode = self._choice(episodes.mode)
        counts = tf.reduce_sum(of_mode, axis=0)
        return 1 / tf.linalg.matvec(of_mode, counts)

    def gradient_groups(self):
        """One group per mode."""
        return [network.trainable_variables for network in self.networks]

    def get_config(self):
        """Returns the constructor arguments."""
        config = super().get_config()
        for part in ("network", "encoder", "modulation"):
            del config[part]
        return config | {"networks": [_serialize(network) for network in self.networks]}
