"""Any Keras model as a task network."""

from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.keras_internals import flat_layers, mask_of
from mmaml_tf.networks import folding, keras_layers, normalisation, shortened
from mmaml_tf.networks.task_network import ForwardPass, TaskNetwork

#: whose statistics batch normalisation may use
STATISTICS = ("query", "support", "moving")


@keras.saving.register_keras_serializable("mmaml_tf")
class KerasNetwork(TaskNetwork):
    """Makes any built Keras model a task network, unchanged.

    The model runs once per task by `tf.vectorized_map`, so that it costs no Python loop; XLA
    cannot compile that form. A convolution whose kernel differs by task is the one operation that
    runs in a loop over tasks inside the graph.

    Modulation is folded into kernel and bias, which equals modulating the pre-activation. A layer
    is refused where a normalisation after it would undo that.

    `fit` runs the model in training mode, like Keras: dropout drops, with one mask for all tasks
    and inner steps of an outer step. Everywhere else it is off. What the model adds to the loss,
    by regularisers or `add_loss`, joins the loss of every task, in the inner and the outer loop.

    Batch normalisation uses the statistics that `statistics` names:

    - "query" (default, as published): those of the points at hand, which are the support set
      while adapting and then the queries. A prediction depends on the other queries.
    - "support": those of the support set, for the queries too.
    - "moving": those of the points at hand in `fit`, which also updates the moving averages by
      the queries' statistics, averaged over tasks; the moving averages everywhere else.

    A batch normalisation that is frozen uses its moving averages, as in Keras. Layers of one's own
    that call `tf.nn.moments` or `keras.ops.moments` get its gradient, which is exact to first
    order alone.

    Args:
        model: a built Keras model with one input and one output: functional, sequential or
            subclassed. Its frozen layers are neither adapted nor trained.
        modulated: names of the layers that can be modulated, in order: Dense and convolution
            layers, and normalisations that have a scale and a centre. By default all Dense and
            convolution layers that are not frozen, but the output layer, which is the last layer
            with weights.
        statistics: "query", "support" or "moving".

    Raises:
        ValueError: if the model is not built, has no trainable weight or several inputs,
            `modulated` names a layer that does not exist, or `statistics` is unknown or there is
            nothing that it could apply to.
    """

    supports_xla = False

    def __init__(
        self,
        model: keras.Model,
        modulated: Sequence[str] | None = None,
        statistics: str = "query",
        **kwargs,
    ):
        if not isinstance(model, keras.Model):
            raise ValueError(f"model is a {type(model).__name__}; expected a built keras.Model.")
        kwargs.setdefault("dtype", model.dtype_policy)
        super().__init__(**kwargs)
        if not model.built:
            raise ValueError(
                f"the Keras model {model.name!r} is not built; call it once on data or call "
                "model.build(input_shape) before it becomes a task network."
            )
        if not model.trainable_variables:
            raise ValueError(f"the Keras model {model.name!r} has no trainable weights to adapt.")
        if len(getattr(model, "inputs", None) or [None]) > 1:
            raise ValueError(
                f"the Keras model {model.name!r} has {len(model.inputs)} inputs; a task network "
                "has one. Join them to one input, and take them apart inside the model."
            )
        keras_layers.refuse_layers(model)
        self.model = model
        self.modulated = None if modulated is None else tuple(modulated)
        if isinstance(modulated, str) or (modulated is not None and not len(set(modulated))):
            raise ValueError(f"modulated={modulated!r}: expected a list of names of layers.")
        self.statistics = statistics
        self._state = frozenset()
        self._check_statistics()
        for layer in flat_layers(model):
            normalisation.prepare(layer)
        shortened.prepare(self._last_layer)
        layers = flat_layers(model)
        known = {layer.name: layer for layer in layers if keras_layers.kernel(layer) is not None}
        names = self._default_names() if modulated is None else self.modulated
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no Dense or convolution layer of {model.name!r}, nor a "
                    f"normalisation with a scale; those are {sorted(known)}."
                )
        self._modulated_layers = [known[name] for name in names]
        self.built = True

    def _check_statistics(self):
        if self.statistics not in STATISTICS:
            raise ValueError(f"statistics is {self.statistics!r}; expected one of {STATISTICS}.")
        if self.statistics != "query" and not self._batch_normalisations():
            raise ValueError(
                f"statistics={self.statistics!r}, but the Keras model {self.model.name!r} has no "
                "batch normalisation; leave the argument out."
            )

    def _batch_normalisations(self):
        layers = flat_layers(self.model)
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def _default_names(self):
        last = self._last_layer
        affine = [layer for layer in flat_layers(self.model) if keras_layers.is_affine(layer)]
        return [layer.name for layer in affine if layer is not last and layer.trainable]

    @property
    def state(self) -> Sequence:
        """The moving averages and random seeds that training changes; known once inspected."""
        return [v for v in self.model.variables if id(v) in self._state]

    @property
    def uses_support(self) -> bool:
        """Whether queries are normalised by the support set's statistics."""
        return self.statistics == "support"

    @property
    def modulated_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Those of the modulated layers, or scales of normalisations."""
        return tuple(tuple(keras_layers.kernel(layer).shape) for layer in self._modulated_layers)

    @property
    def head(self) -> Sequence:
        """The weights of the model's last layer with weights."""
        return self._last_layer.trainable_variables

    @property
    def _last_layer(self):
        return keras_layers.weighted_layers(self.model)[-1]

    def build(self, input_shape: Sequence) -> None:
        """Does nothing: the model is built already."""

    def inspect(self, point_shape: Sequence) -> None:
        """Runs the model once and finds out what it changes besides its weights.

        Args:
            point_shape: shape of one point of a task.

        Raises:
            ValueError: if the model does not give one tensor, or one with a mask.
        """
        points = self._points(point_shape, 2)
        statistics = normalisation.Statistics(seen=[])
        values = [tf.convert_to_tensor(v) for v in self.model.trainable_variables]
        pairs = list(zip(self.model.trainable_variables, values, strict=True))
        with (
            tf.GradientTape() as tape,
            normalisation.using(statistics),
            keras.StatelessScope(pairs, collect_losses=True) as scope,
        ):
            tape.watch(values)
            outputs = self.model(points, training=True)
        if not tf.is_tensor(outputs):
            raise ValueError(
                f"the Keras model {self.model.name!r} gives a {type(outputs).__name__}; a task "
                "network gives one tensor. Wrap the output that the loss is of."
            )
        self._check_mask(outputs)
        differentiable = outputs.dtype.is_floating and any(
            g is not None for g in tape.gradient(outputs, values)
        )
        if not differentiable:
            raise ValueError(
                f"the outputs of the Keras model {self.model.name!r} have no gradient by any of "
                "its weights, so that it cannot be adapted; leave out what takes it away, such as "
                "an argmax or a cast to integers."
            )
        # A normalisation that sees one number a point makes nothing of a single point.
        self.least_points = 2 if any(number <= len(points) for number in statistics.seen) else 1
        changed = [
            v for v in self.model.non_trainable_variables if scope.get_current_value(v) is not None
        ]
        unused = {id(v) for layer in self._batch_normalisations() for v in layer.variables}
        used = [v for v in changed if self.statistics == "moving" or id(v) not in unused]
        # Not the variables: Keras would take them for the wrapper's own.
        self._state = frozenset(map(id, used))

    def _check_mask(self, outputs):
        if mask_of(outputs) is not None:
            raise ValueError(
                f"the outputs of the Keras model {self.model.name!r} carry a mask, which the loss "
                "of a task would ignore; end the model with a layer that uses it up, such as a "
                "pooling or a recurrent layer without return_sequences."
            )

    def _points(self, point_shape, points):
        """Returns points `[points, ...]` that the model can take; always the same ones."""
        rng = np.random.default_rng(0)
        shape = (points, *(4 if size is None else size for size in point_shape))
        ids = [
            layer.input_dim
            for layer in flat_layers(self.model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        values = rng.integers(min(ids), size=shape) if ids else rng.normal(size=shape)
        return tf.cast(tf.constant(values), self.variable_dtype)

    def check_modulation(self, modulation: Sequence, point_shape: Sequence) -> None:
        """Raises ValueError where modulating a layer makes no difference to the outputs.

        Args:
            modulation: see `TaskNetwork.check_modulation`.
            point_shape: shape of one point of a task.
        """
        folding.check(self, self._modulated_layers, modulation, self._points(point_shape, 16))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Runs the model itself on `[N, ...]`."""
        return self.model(x)

    def functional_call(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        support_x: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """See `TaskNetwork.functional_call`; with "support", support_x is `[T, K, ...]`."""
        return self.run(weights, x, modulation, support_x).outputs

    def head_inputs(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """See `TaskNetwork.head_inputs`; the output layer must be a Dense layer, and the last."""
        with shortened.without(self._last_layer):
            return self.run(weights, x, modulation, training=training).outputs

    def run(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        support_x: tf.Tensor | None = None,
        training: bool = False,
    ) -> ForwardPass:
        """See `TaskNetwork.run`."""
        variables = self.model.trainable_variables
        weights, per_task = folding.fold(variables, self._modulated_layers, weights, modulation)
        mapped = [w for w, is_mapped in zip(weights, per_task, strict=True) if is_mapped]
        reference = None
        if self.uses_support and support_x is not None:
            reference = support_x.shape[1] or tf.shape(support_x)[1]
            x = tf.concat([support_x, x], axis=1)
        statistics = normalisation.Statistics(
            training or self.statistics != "moving", reference, x.shape[1] or tf.shape(x)[1]
        )

        # Scopes do not see into each other: what an outer one says of these is to hold inside.
        others = [(v, tf.convert_to_tensor(v)) for v in self.model.non_trainable_variables]
        added = []

        def one_task(inputs):
            x_task, mapped_task = inputs
            mapped_task = iter(mapped_task)
            pairs = zip(weights, per_task, strict=True)
            task_weights = [next(mapped_task) if is_mapped else w for w, is_mapped in pairs]
            pairs = [*zip(variables, task_weights, strict=True), *others]
            with (
                normalisation.using(statistics),
                keras.StatelessScope(pairs, collect_losses=True) as scope,
            ):
                outputs = self.model(x_task, training=training)
                losses = self.model.losses
                self._check_mask(outputs)
                state = [scope.get_current_value(v) for v in self.state] if training else []
            outputs = tf.cast(outputs[reference:], self.variable_dtype)
            losses = [tf.cast(loss, self.variable_dtype) for loss in losses]
            added[:] = losses
            return outputs, tf.add_n(losses) if losses else tf.zeros([], outputs.dtype), state

        try:
            outputs, losses, state = self._map(one_task, (x, mapped), training)
        except Exception as error:  # of whatever kind a layer raises while it is traced
            raise ValueError(
                f"the Keras model {self.model.name!r} cannot run for several tasks at once: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error
        return ForwardPass(outputs, losses if added else None, state)

    def _map(self, one_task, inputs, training):
        """Returns what a function gives for each task."""
        if inputs[0].shape[0] is not None:
            return tf.vectorized_map(one_task, inputs)
        # The gradients of what is vectorised need the number of tasks.
        dtype = self.variable_dtype
        signature = dtype, dtype, [v.dtype for v in self.state] if training else []
        return tf.map_fn(one_task, inputs, fn_output_signature=signature)

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "modulated": self.modulated,
            "statistics": self.statistics,
            "name": self.name,
            "dtype": self.dtype_policy,
        }

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Makes the wrapper, and the model in it, from what `get_config` returned."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(model, **{key: value for key, value in config.items() if key != "model"})


def as_task_network(network: keras.Model) -> TaskNetwork:
    """Returns `network` itself if it is a TaskNetwork, else wraps the Keras model."""
    if isinstance(network, TaskNetwork):
        return network
    if isinstance(network, keras.Model):
        return KerasNetwork(network)
    raise ValueError(
        f"a task network is a mmaml_tf.networks.TaskNetwork or a keras.Model, got a "
        f"{type(network).__module__}.{type(network).__name__}."
    )
