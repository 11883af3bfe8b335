"""What every meta-learner is: its parts, how they are built and stored, and its outer step.

`MetaLearner` holds a task network, an inner loop and, for multimodal learners, an encoder and a
modulation. It knows nothing of what tasks are made of; `learners.Learner` (support and query
sets) and `rl.learners.PolicyLearner` (trajectories) do.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division, layers
from mmaml_tf import modulation as modulation_lib
from mmaml_tf import networks as networks_lib
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.nonfinite import StopOnNonFinite, UpdateGuard

_serialize = keras.saving.serialize_keras_object
_deserialize = keras.saving.deserialize_keras_object


class Mean(keras.metrics.Mean):
    """A mean that is NaN, and not 0, where there was nothing to average."""

    def result(self):
        """Returns the mean of what was added since the last reset."""
        return _mean(self)


def _mean(metric):
    return keras.ops.divide(metric.total, keras.ops.cast(metric.count, metric.dtype))


class MetaLearner(keras.Model):
    """Learns an initialisation, and how to modulate it, from which few gradient steps suffice.

    A subclass says what the data of a task are: `build_for`, `train_step`, and the loss of its
    outer loop, `outer_losses`.

    Args:
        network: the task network, a `networks.TaskNetwork` or any built Keras model.
        inner_loop: the adaptation; only the network's weights take part in it.
        encoder: layer from a task's data to task embeddings `[T, E]`, or None.
        modulation: a `modulation.Modulation` or its name, or None; needs an encoder.
        outer_clip: bound on the norm of the outer gradient of each group (the task network;
            encoder and modulation together), or None.
        on_nonfinite: "stop" or "skip", see `nonfinite.UpdateGuard`.
        modes: names of the task modes, to report by mode.

    Raises:
        ValueError: when the parts do not fit together.
    """

    #: whether adaptation needs to be told each task's mode
    needs_mode = False
    #: what is reported by mode
    measured_by_mode = "loss"

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
        **kwargs,
    ):
        # Mixed precision is the network's and the encoder's; losses and meta-gradients are whole.
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
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
        self.by_mode = [Mean(name=f"{self.measured_by_mode}_{mode}") for mode in self.modes]

    # -- building ---------------------------------------------------------------------------

    def build(self, input_shape):
        """Creates all weights.

        Args:
            input_shape: shapes of the two parts of a task's data: of inputs and targets, or of
                observations and actions. Only the axes of a single point or step matter.

        Raises:
            ValueError: when encoder, modulation and network do not fit these shapes.
        """
        shapes = [tuple(shape) for shape in input_shape[:2]]
        for network in self._networks():
            if not network.built:
                network.build(self._network_shape(shapes[0]))
        if self.encoder is not None:
            if not self.encoder.built:
                self.encoder.build(*shapes)
            widths = self.network.modulated_widths
            self.modulation.build_for(self._embedding_size(*shapes), widths)
        self._check_outputs(*shapes)
        watched = self._network_variables() + self._modulating_variables()
        names = ["loss", *(v.path for v in watched)]
        self.guard = UpdateGuard(self.on_nonfinite, names, len(self.modes), name="guard")
        self.support_shapes = tuple(shapes)
        self.built = True

    def _networks(self):
        return [self.network]

    def _network_shape(self, shape):
        """Returns the shape of the network's inputs."""
        return shape

    def _embedding_size(self, *shapes):
        raise NotImplementedError

    def _check_outputs(self, *shapes):
        """Raises ValueError when the network's outputs do not fit the data."""
        raise NotImplementedError

    def build_for(self, batch) -> None:
        """Creates all weights for data like these (tensors, arrays or specs)."""
        raise NotImplementedError

    def get_build_config(self):
        """Returns what `build_from_config` needs."""
        return {"input_shape": [[None, None, *shape[2:]] for shape in self.support_shapes]}

    def build_from_config(self, config):
        """Builds a learner that was loaded from a file."""
        self.build(config["input_shape"])

    # -- the parts ----------------------------------------------------------------------------

    def embed(self, *data):
        """Returns task embeddings `[T, E]`; raises ValueError for a learner without encoder.

        Args:
            *data: what the encoder takes: support_x and support_y, or trajectories.
        """
        if self.encoder is None:
            raise ValueError(f"{type(self).__name__} has no encoder, hence no task embedding.")
        return self.encoder(*data)

    def modulate(self, *data):
        """Returns the modulation of each block for these data, see `embed`; None without one.

        Once per task: every later step sees the same modulation.
        """
        if self.modulation is None:
            return None
        return self.modulation(self.embed(*data))

    def initial_weights(self, tasks, mode=None):
        """Returns the weights each task starts from, as tensors `[T, ...]`.

        Those that the inner loop does not adapt lack the task axis.

        Args:
            tasks: number of tasks T.
            mode: `[T]` mode of each task; only a `Bank` uses it.
        """
        del mode
        return [
            tf.tile(v[None], [tasks] + [1] * len(v.shape)) if adapted else v
            for v, adapted in zip(self._shared_weights(), self._adapted(), strict=True)
        ]

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

    def check_modes(self, modes: Sequence[str]) -> None:
        """Raises ValueError where tasks have other modes than a learner that chooses by mode."""
        if self.needs_mode and self.modes != tuple(modes):
            raise ValueError(
                f"the learner's modes are {self.modes}, those of the tasks {tuple(modes)}; they "
                "must be the same, in the same order."
            )

    def check_tasks(self, tasks) -> None:
        """Raises ValueError for tasks to train on whose modes are not those of the learner.

        A learner that names no modes, and tasks that have none, fit all.
        """
        modes = getattr(tasks, "modes", None)
        if modes is not None and self.modes and self.modes != tuple(modes):
            raise ValueError(
                f"the learner's modes are {self.modes}, those of the tasks {tuple(modes)}; they "
                "must be the same, in the same order, or the learner must name none."
            )

    def _adapted(self):
        """Returns for each of the network's weights whether the inner loop adapts it."""
        head = {id(v) for v in self.network.head} if self.inner_loop.head_only else None
        return [head is None or id(v) in head for v in self.network.trainable_variables]

    def _shared_weights(self):
        return [tf.convert_to_tensor(v) for v in self.network.trainable_variables]

    def _network_variables(self):
        of_modulation = {id(v) for v in self._modulating_variables()}
        return [v for v in self.trainable_variables if id(v) not in of_modulation]

    def _modulating_variables(self):
        if self.encoder is None:
            return []
        return self.encoder.trainable_variables + self.modulation.trainable_variables

    # -- the outer step -------------------------------------------------------------------------

    def outer_losses(self, batch: Sequence, affine):
        """Adapts and measures, inside the outer gradient tape.

        Args:
            batch: the tensors of t tasks, in the order given to `outer_step`.
            affine: the modulation of each block for them, see `modulate`.

        Returns:
            The outer loss of each task `[t]`, and a tensor `[t, ...]` of what the metrics need.
        """
        raise NotImplementedError

    def modulate_batch(self, batch: Sequence):
        """Returns the modulation of each block for a batch, see `outer_losses`."""
        raise NotImplementedError

    def update_metrics(self, outputs, losses, mode, targets) -> dict:
        """Updates and returns the metrics of an outer step.

        Args:
            outputs: `[T, ...]`, see `outer_losses`.
            losses: `[T]`.
            mode: `[T]`, or None.
            targets: what was given to `outer_step`.
        """
        raise NotImplementedError

    def compile(
        self,
        optimizer="adam",
        loss=None,
        jit_compile="auto",
        shards="auto",
        tasks_at_once="auto",
        **kwargs,
    ):
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: a Keras loss or its name, where the subclass takes one.
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
        self._shard_gradients = self._compiled(self._losses_and_gradients)
        self._update = self._compiled(self._apply)

    def _compiled(self, function):
        """Returns a function as a graph, by XLA where it is used."""
        if self.run_eagerly:
            return function
        return tf.function(function, autograph=False, jit_compile=self.xla)

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
        """Trains on a dataset of batches of tasks; see `keras.Model.fit`.

        Raises:
            ValueError: for data that are none, or a learner that is not compiled.
            NonFiniteError: when a loss or meta-gradient is not finite (see `on_nonfinite`).
        """
        if not isinstance(x, tf.data.Dataset):
            raise ValueError(
                f"fit takes a tf.data.Dataset of batches of tasks, got {type(x).__name__}."
            )
        if not self.compiled:
            raise ValueError("the learner is not compiled; call compile(optimizer, loss) first.")
        self.build_for(x.element_spec)
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self.guard.resume()
        kwargs.setdefault("shuffle", False)  # the order of a dataset is its own
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        return super().fit(x, *args, callbacks=[StopOnNonFinite(), *callbacks], **kwargs)

    def outer_step(self, batch: Sequence, weights, mode=None, origin=None, targets=None) -> dict:
        """Takes one outer step on a batch of tasks.

        Args:
            batch: tensors `[T, ...]`, or None where there is nothing.
            weights: `[T]` weight of each task in the outer loss, see `task_weights`.
            mode: `[T]` mode of each task, or None.
            origin: `[2]` (seed, step) of the batch, or None.
            targets: what the metrics need besides outputs and losses.

        Returns:
            The metrics by name.
        """
        parts = self._divide(weights.shape[0])
        shards = [
            self._shard_gradients(*shard, groups=parts.groups)
            for shard in division.split([*batch, weights], parts.shards)
        ]
        losses, outputs, gradients = zip(*shards, strict=True)
        return self._update(
            [tf.add_n(of_shards) for of_shards in zip(*gradients, strict=True)],
            tf.concat(losses, axis=0),
            tf.concat(outputs, axis=0),
            weights,
            mode,
            origin,
            targets,
        )

    def _divide(self, tasks):
        if not self.xla and self._division == {"shards": "auto", "tasks_at_once": "auto"}:
            return division.Division()
        weights = self.network.trainable_variables
        size = sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in weights)
        return division.Division.of(tasks, size, **self._division)

    def _losses_and_gradients(self, *arrays, groups):
        """Returns losses `[T]`, outputs and the outer gradient of Σ weights·losses."""
        with layers.compiled_by_xla(self.xla):
            return self._divided_gradients(arrays, groups)

    def _divided_gradients(self, arrays, groups):
        # The encoder sees all tasks at once, the inner loop one group after the other; the chain
        # rule joins them where the modulation enters.
        *batch, weights = arrays
        count = len(arrays)
        modulators = [v.value for v in self._modulating_variables()]
        adapted = [v.value for v in self._network_variables()]
        with tf.GradientTape(watch_accessed_variables=False) as modulating:
            modulating.watch(modulators)
            affine = self.modulate_batch(batch)
        # Blocks without modulation, and modulations that do not shift, have None.
        tensors = [t for t in tf.nest.flatten(affine) if t is not None]

        def group_gradients(*arrays):
            (*batch, weights), tensors = arrays[:count], arrays[count:]
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch([adapted, tensors])
                given = iter(tensors)
                own = tf.nest.map_structure(lambda t: None if t is None else next(given), affine)
                losses, outputs = self.outer_losses(batch, own)
                loss = tf.reduce_sum(weights * losses)
            gradients = outer.gradient(loss, [*adapted, *tensors], unconnected_gradients="zero")
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            by_task = losses, outputs, *gradients[len(adapted) :]
            return by_task, gradients[: len(adapted)]

        (losses, outputs, *of_tensors), gradients = division.map_groups(
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
        return losses, outputs, gradients

    def _apply(self, gradients, losses, outputs, weights, mode, origin, targets):
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
        return self.update_metrics(outputs, losses, mode, targets)

    def task_weights(self, tasks: int, mode=None):
        """Returns the weight of each task's loss in the outer loss, `[T]`: that of their mean."""
        del mode
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

    def get_metrics_result(self):
        """Returns the metrics by name; the loss is NaN, and not 0, where none was finite."""
        return super().get_metrics_result() | {"loss": _mean(self._loss_tracker)}

    def _update_loss(self, losses):
        """Updates the mean loss, of the finite ones; returns which those are, `[T]`."""
        finite = tf.math.is_finite(losses)
        weights = tf.cast(finite, losses.dtype)
        self._loss_tracker.update_state(tf.where(finite, losses, 0.0), sample_weight=weights)
        return finite

    def _update_by_mode(self, values, mode):
        """Updates the means by mode of `[T]` values, of the finite ones."""
        finite = tf.math.is_finite(values)
        values = tf.where(finite, values, 0.0)
        for index, metric in enumerate(self.by_mode if mode is not None else ()):
            metric.update_state(
                values, sample_weight=tf.cast(finite & (mode == index), values.dtype)
            )

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
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """Makes a learner from what `get_config` returned."""
        parts = ("network", "networks", "inner_loop", "encoder", "modulation")
        return cls(**{k: _deserialize(v) if k in parts else v for k, v in config.items()})
