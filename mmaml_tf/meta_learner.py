"""What every meta-learner is: its parts, how they are built, compiled and stored.

`MetaLearner` holds a task network, an inner loop and, for multimodal learners, an encoder and a
modulation. It knows nothing of what tasks are made of; `learners.Learner` (support and query
sets) and `rl.learners.PolicyLearner` (trajectories) do.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division
from mmaml_tf import modulation as modulation_lib
from mmaml_tf import networks as networks_lib
from mmaml_tf.arguments import positive_number
from mmaml_tf.encoders import run_encoder
from mmaml_tf.export import export_path
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.keras_internals import flat_layers
from mmaml_tf.names import checked
from mmaml_tf.nonfinite import UpdateGuard
from mmaml_tf.outer_step import Mean, OuterStep

_serialize = keras.saving.serialize_keras_object
_deserialize = keras.saving.deserialize_keras_object


class MetaLearner(OuterStep):
    """Learns an initialisation, and how to modulate it, from which few gradient steps suffice.

    A subclass says what the data of a task are: `build_for`, `train_step`, and the loss of its
    outer loop, `outer_losses`.

    Layers that are frozen (`trainable = False`) are neither adapted nor trained. What an encoder
    adds to the loss, by regularisers or `add_loss`, joins the outer loss. Constraints of weights
    hold for the initial weights, which the optimizer updates.

    Args:
        network: the task network, a `networks.TaskNetwork` or any built Keras model.
        encoder: layer from a task's data to task embeddings `[T, E]`, or None.
        modulation: a `modulation.Modulation` or its name, or None; needs an encoder.
        inner_loop: the adaptation, by default `InnerLoop()`; only the network's weights take part
            in it.
        outer_clip: bound on the norm of the outer gradient of each group (the task network;
            encoder and modulation together; what the update rule learns), or None.
        on_nonfinite: "stop" or "skip", see `nonfinite.UpdateGuard`.
        modes: names of the task modes, to report by mode.

    Raises:
        ValueError: when the parts do not fit together, or under a strategy that is not supported.
    """

    #: those of encoder, modulation and inner_loop that learners of this kind have none of
    without: tuple[str, ...] = ()
    #: whether adaptation needs to be told each task's mode
    needs_mode = False
    #: what is reported by mode
    measured_by_mode = "loss"
    #: attributes that may be set anew at any time
    settings = ("outer_clip", "on_nonfinite")

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer | None = None,
        modulation: modulation_lib.Modulation | str | None = None,
        inner_loop: InnerLoop | None = None,
        outer_clip: float | None = 2.0,
        on_nonfinite: str = "stop",
        modes: Sequence[str] = (),
        **kwargs,
    ):
        # Mixed precision is the network's and the encoder's; losses and meta-gradients are whole.
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        parts = {"encoder": encoder, "modulation": modulation, "inner_loop": inner_loop}
        for part in self.without:
            if parts[part] is not None:
                raise ValueError(f"{type(self).__name__} has no {part}; leave it out.")
        if inner_loop is None:
            inner_loop = InnerLoop(steps=0) if "inner_loop" in self.without else InnerLoop()
        if (encoder is None) != (modulation is None):
            raise ValueError("give both an encoder and a modulation, or neither.")
        if not isinstance(inner_loop, InnerLoop):
            raise ValueError(
                f"inner_loop is a {type(inner_loop).__name__}; expected a mmaml_tf.InnerLoop."
            )
        if encoder is not None and not isinstance(encoder, keras.layers.Layer):
            raise ValueError(
                f"the encoder is a {type(encoder).__module__}.{type(encoder).__name__}; expected "
                "a keras.layers.Layer of Keras 3."
            )
        self.network = networks_lib.as_task_network(network)
        self.inner_loop = inner_loop
        self.encoder = encoder
        self.modulation = None if modulation is None else modulation_lib.get(modulation)
        self.outer_clip = None if outer_clip is None else positive_number("outer_clip", outer_clip)
        self.on_nonfinite = on_nonfinite
        if not np.iterable(modes):
            raise ValueError(f"modes={modes!r}: expected different names.")
        self.modes = (modes,) if isinstance(modes, str) else tuple(modes)
        if not all(isinstance(m, str) for m in self.modes) or len(set(modes)) < len(self.modes):
            raise ValueError(f"modes={modes!r}: expected different names.")
        self.by_mode = [Mean(name=f"{self.measured_by_mode}_{mode}") for mode in self.modes]
        self._encoder_state = frozenset()
        self._stored_trainable = None

    # -- building ---------------------------------------------------------------------------

    def build(self, input_shape: Sequence) -> None:
        """Creates all weights.

        Args:
            input_shape: shapes of the two parts of a task's data: of inputs and targets, or of
                observations and actions. Only the axes of a single point or step matter.

        Raises:
            ValueError: when encoder, modulation and network do not fit these shapes, or the
                learner is built already.
        """
        pair = isinstance(input_shape, (tuple, list)) and len(input_shape) >= 2
        if not (pair and all(isinstance(shape, (tuple, list)) for shape in input_shape[:2])):
            raise ValueError(
                f"build got {input_shape!r}; expected the shapes of the two parts of a task's "
                "data. build_for(batch) takes them from a batch."
            )
        shapes = [tuple(shape) for shape in input_shape[:2]]
        if self.built:
            raise ValueError(
                "the learner has its weights already, and build would make others; make a new "
                "learner for data of other shapes."
            )
        with self.replicas.scope():
            self._build_parts(shapes)
        self.replicas.check_variables(v for part in self._parts() for v in part.variables)
        self._restore_frozen()
        self._stored_trainable = None
        self._check_dtypes()
        self.support_shapes = tuple(shapes)
        self.built = True

    def _build_parts(self, shapes):
        point = self._network_shape(shapes[0])[2:]
        for network in self._networks():
            if not network.built:
                network.build(self._network_shape(shapes[0]))
            network.inspect(point)
        self._check_outputs(*shapes)
        if self.encoder is not None:
            size = self._build_encoder(*shapes)
            self.modulation.build_for(size, self.network.modulated_kernels)
            self.network.check_modulation(self.modulation.examples(2), point)
        # It has rates for those weights that are adapted: what is frozen has none.
        self._restore_frozen()
        modes = self.modes if self.needs_mode else ()
        self.inner_loop.build_for(self._adapted_variables(), modes)
        names = [v.path for v in self.guarded]
        self.guard = UpdateGuard(self.on_nonfinite, names, len(self.modes), name="guard")

    def _layers_of_parts(self):
        """Returns all layers of the parts, each before those inside it."""
        return [layer for part in self._parts() for layer in flat_layers(part)]

    def _parts(self):
        # The inner loop is last: in a bank it gets more layers when it is built.
        parts = self.encoder, self.modulation, self.inner_loop
        return [*self._networks(), *(part for part in parts if part is not None)]

    def _restore_frozen(self):
        """Freezes the layers that were frozen when the learner was stored."""
        for layer, trainable in zip(
            self._layers_of_parts(), self._stored_trainable or (), strict=False
        ):
            layer.trainable = trainable

    def _check_dtypes(self):
        """Raises ValueError where parts keep their weights in other types than the learner."""
        weights = [v for v in self.guarded if tf.as_dtype(v.dtype).is_floating]
        if other := [f"{v.path} ({v.dtype})" for v in weights if v.dtype != self.variable_dtype]:
            raise ValueError(
                f"the learner is {self.variable_dtype}, and not {other[0]}; give the learner and "
                "all of its parts one dtype, or set it for all by keras.config.set_dtype_policy."
            )

    @property
    def guarded(self) -> list:
        """The weights whose updates are watched, whether they are trained or frozen now."""
        return [v for part in self._parts() for v in part.weights]

    @property
    def encoder_state(self) -> list:
        """The variables that the encoder changes in training besides its weights."""
        if not self._encoder_state:
            return []
        return [v for v in self.encoder.variables if id(v) in self._encoder_state]

    def traced_settings(self) -> tuple:
        """See `TaskModel.traced_settings`."""
        own = tuple(getattr(self, name) for name in self.settings)
        loop = tuple(self.inner_loop.settings().values())
        return super().traced_settings() + own + loop + (self.network.statistics,)

    def phases(self) -> Sequence:
        """See `OuterStep.phases`; they are those of the inner loop."""
        return self.inner_loop.phases()

    def gradient_groups(self) -> list[list]:
        """See `OuterStep.gradient_groups`; what an update rule learns is a group, too."""
        of_rules = [rule.trainable_variables for rule in self.inner_loop.rules]
        return [*super().gradient_groups(), *filter(None, of_rules)]

    def refresh(self) -> None:
        """See `TaskModel.refresh`."""
        if self.built:
            self.guard.set_policy(self.on_nonfinite)
        super().refresh()

    def _networks(self):
        return [self.network]

    def _network_shape(self, shape):
        """Returns the shape of the network's inputs."""
        return shape

    def _example_data(self, *shapes):
        """Returns data of one task of these shapes, as the encoder takes them."""
        raise NotImplementedError

    def _build_encoder(self, *shapes):
        """Builds the encoder, finds out what it changes in training; returns the size E."""
        data = self._example_data(*shapes)
        self.embed(*data)  # builds what is not built yet
        with keras.StatelessScope(collect_losses=True) as scope:
            embedding = self.embed(*data, training=True)
        if len(embedding.shape) != 2 or embedding.shape[-1] is None:
            raise ValueError(
                f"the encoder {self.encoder.name!r} gives embeddings of shape "
                f"{tuple(embedding.shape)}; expected [T, E] with a known E."
            )
        state = self.encoder.non_trainable_variables
        changed = [v for v in state if scope.get_current_value(v) is not None]
        # Not the variables: Keras would take them for the learner's own.
        self._encoder_state = frozenset(map(id, changed))
        return embedding.shape[-1]

    def _check_outputs(self, *shapes):
        """Raises ValueError when the network's outputs do not fit the data."""
        raise NotImplementedError

    def get_build_config(self) -> dict | None:
        """Returns what `build_from_config` needs; None for a learner that is not built."""
        if not self.built:
            return None
        return {"input_shape": [[None, None, *shape[2:]] for shape in self.support_shapes]}

    def build_from_config(self, config: dict) -> None:
        """Builds a learner that was loaded from a file."""
        self.build(config["input_shape"])

    # -- the parts ----------------------------------------------------------------------------

    def embed(self, *data, training: bool = False) -> tf.Tensor:
        """Returns task embeddings `[T, E]`; raises ValueError for a learner without encoder.

        Args:
            *data: what the encoder takes: support_x and support_y, or trajectories.
            training: whether random layers and moving averages of the encoder are in use.
        """
        if self.encoder is None:
            raise ValueError(f"{type(self).__name__} has no encoder, hence no task embedding.")
        return tf.cast(run_encoder(self.encoder, data, training), self.compute_dtype)

    def modulate(self, *data, training: bool = False) -> list | None:
        """Returns the modulation of each block for these data, see `embed`; None without one.

        Once per task: every later step sees the same modulation.
        """
        if self.modulation is None:
            return None
        return self.modulation(self.embed(*data, training=training))

    def initial_weights(self, tasks: int, mode: tf.Tensor | None = None) -> list:
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
        if self.needs_mode:
            self._check_known(mode)
        return tf.convert_to_tensor(mode, tf.int32)

    def _check_known(self, mode):
        """Raises ValueError for modes `[T]` that the learner does not name."""
        if not np.all((mode >= 0) & (mode < len(self.modes))):
            raise ValueError(
                f"mode is {np.asarray(mode).tolist()}; expected indices in {self.modes}, from 0 to "
                f"{len(self.modes) - 1}."
            )

    def check_modes(self, modes: Sequence[str]) -> None:
        """Raises ValueError where tasks have other modes than a learner that chooses by mode."""
        if self.needs_mode and self.modes != tuple(modes):
            raise ValueError(
                f"the learner's modes are {self.modes}, those of the tasks {tuple(modes)}; they "
                "must be the same, in the same order."
            )

    def check_tasks(self, tasks: Any) -> None:
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
        adapted = self._adapted_variables()
        self.inner_loop.check_adapted(adapted)
        adapted = set(map(id, adapted))
        return [id(v) in adapted for v in self.network.trainable_variables]

    def _adapted_variables(self):
        variables = self.network.trainable_variables
        if not self.inner_loop.head_only:
            return variables
        head = set(map(id, self.network.head))
        return [v for v in variables if id(v) in head]

    def _shared_weights(self):
        return [tf.convert_to_tensor(v) for v in self.network.trainable_variables]

    # -- compilation and serialisation --------------------------------------------------------

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        loss: Any = None,
        jit_compile: bool | str = "auto",
        shards: int | str = "auto",
        tasks_at_once: int | str = "auto",
        **kwargs,
    ) -> None:
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
            ValueError: if XLA is asked for and the task network cannot be compiled by it, for
                shards or tasks_at_once that are no positive numbers, for an argument of Keras's
                that has no meaning here, or under another strategy than
                the learner's own.
        """
        self.replicas.check_own()
        division.check(shards, tasks_at_once)
        if optimizer is None:
            raise ValueError('optimizer=None: a learner needs one; give "adam" for example.')
        taken = {"loss", *(metric.name for metric in self.by_mode)}
        for metric in tf.nest.flatten(kwargs.get("metrics") or []):
            if (name := getattr(metric, "name", metric)) in taken:
                raise ValueError(
                    f"a metric is named {name!r}, like one of the learner's own; rename it."
                )
        for name in ("loss_weights", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"compile got {name}, but tasks and points have no weights here; leave it out."
                )
        if self.replicas.count > 1 and kwargs.get("steps_per_execution", 1) not in (1, None):
            raise ValueError(
                f"steps_per_execution={kwargs['steps_per_execution']}, but TensorFlow cannot sum "
                f"over {self.replicas.count} replicas in a loop inside a graph; leave it out."
            )
        supports_xla = self.network.supports_xla and not _max_pools(self.network)
        if jit_compile == "auto":
            jit_compile = supports_xla and not kwargs.get("run_eagerly", False)
        if jit_compile and not supports_xla:
            raise ValueError(
                f"jit_compile=True, but XLA cannot compile {type(self.network).__name__}, which "
                "vectorises a Keras model over tasks, or has max-pooling, whose second derivative "
                "XLA gets wrong; use jit_compile=False or 'auto', or write the network as a "
                "mmaml_tf.networks.TaskNetwork with pooling by strides or averages."
            )
        # XLA compiles the parts of a step, so that the shards are programs that run concurrently.
        with self.replicas.scope():
            super().compile(optimizer=optimizer, loss=loss, jit_compile=False, **kwargs)
        self.replicas.check_optimizer(self.optimizer)
        given = tf.nest.flatten(kwargs.get("metrics") or [])
        given = [metric for metric in given if isinstance(metric, keras.metrics.Metric)]
        self.replicas.keep_local([*self.metrics, *given])
        self.xla = bool(jit_compile)
        self._division = {"shards": shards, "tasks_at_once": tasks_at_once}
        self.renew_graphs()

    def export(
        self,
        filepath: str | PathLike | None = None,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        path: str | PathLike | None = None,
        **kwargs,
    ) -> None:
        """Writes a SavedModel that adapts inside the graph; see `write_export`.

        Args:
            filepath: directory to write to.
            format: "tf_saved_model".
            verbose: whether to say where the model was written; by default not.
            path: another name of `filepath`.
            **kwargs: refused; the signature is the learner's own.

        Raises:
            ValueError: for another format, no path, or a learner that is not built and compiled.
        """
        self.write_export(export_path(filepath, format, path, kwargs))
        if verbose:
            print(f"Saved a SavedModel at {filepath or path}.")

    def write_export(self, path: str | PathLike) -> None:
        """Writes the learner to a directory; a subclass says in which form."""
        raise NotImplementedError

    def compile_from_config(self, config: dict) -> None:
        """Compiles a learner that was loaded from a file."""
        self.compile(**_deserialize(config))
        if self.built:
            self.build_optimizer()

    def get_compile_config(self) -> dict | None:
        """Returns what `compile_from_config` needs."""
        # Keras restores a class that overrides `compile` only if it overrides this too.
        config = super().get_compile_config()
        return config and config | {"jit_compile": self.xla, **self._division}

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        parts = ("network", "encoder", "modulation", "inner_loop")
        return {
            **{part: _serialize(getattr(self, part)) for part in parts if part not in self.without},
            "outer_clip": self.outer_clip,
            "on_nonfinite": self.on_nonfinite,
            "modes": list(self.modes),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable_layers": self._trainable_layers(),
        }

    def _trainable_layers(self):
        """Returns whether each layer is trained, or None where all are."""
        trainable = [layer.trainable for layer in self._layers_of_parts()]
        return None if all(trainable) else trainable

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Makes a learner from what `get_config` returned."""
        parts = ("network", "networks", "encoder", "modulation", "inner_loop")
        config = {k: _deserialize(v) if k in parts else v for k, v in config.items()}
        trainable = config.pop("trainable_layers", None)
        learner = cls(**config)
        learner._stored_trainable = trainable and tuple(trainable)
        if trainable and len(trainable) == len(learner._layers_of_parts()):
            learner._restore_frozen()
            learner._stored_trainable = None
        return learner


def _max_pools(network):
    kinds = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    return any(isinstance(layer, kinds) for layer in flat_layers(network))
