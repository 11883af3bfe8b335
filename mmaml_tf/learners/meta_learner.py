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
from mmaml_tf.export import export_path
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.keras_internals import flat_layers
from mmaml_tf.learners.outer_step import Mean
from mmaml_tf.learners.parts import Parts
from mmaml_tf.names import checked

_serialize = keras.saving.serialize_keras_object
_deserialize = keras.saving.deserialize_keras_object


class MetaLearner(Parts):
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

    # -- settings and modes --------------------------------------------------------------

    def traced_settings(self) -> tuple:
        """See `TaskModel.traced_settings`."""
        own = tuple(getattr(self, name) for name in self.settings)
        loop = tuple(self.inner_loop.settings().values())
        return super().traced_settings() + own + loop + (self.network.statistics,)

    def refresh(self) -> None:
        """See `TaskModel.refresh`."""
        if self.built:
            self.guard.set_policy(self.on_nonfinite)
        super().refresh()

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
