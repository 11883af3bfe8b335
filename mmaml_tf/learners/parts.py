"""The parts of a meta-learner: how they are built for some data, and what each one computes."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf.encoders import run_encoder
from mmaml_tf.keras_internals import flat_layers
from mmaml_tf.learners.outer_step import OuterStep
from mmaml_tf.nonfinite import UpdateGuard


class Parts(OuterStep):
    """The task network, the encoder, the modulation and the inner loop of a meta-learner.

    A subclass sets them as attributes: `network`, `encoder` and `modulation` (or None), and
    `inner_loop`; and `modes`, `needs_mode` and `on_nonfinite`.
    """

    # What the encoder changes in training, by the ids of variables.
    _encoder_state = frozenset()
    # Which layers were trained in a learner that is being loaded.
    _stored_trainable = None

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

    def phases(self) -> Sequence:
        """See `OuterStep.phases`; they are those of the inner loop."""
        return self.inner_loop.phases()

    def gradient_groups(self) -> list[list]:
        """See `OuterStep.gradient_groups`; what an update rule learns is a group, too."""
        of_rules = [rule.trainable_variables for rule in self.inner_loop.rules]
        return [*super().gradient_groups(), *filter(None, of_rules)]

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
