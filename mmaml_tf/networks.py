"""Task networks: Keras models whose forward pass takes its weights as an argument."""

import contextlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import layers


class TaskNetwork(keras.Model):
    """A Keras model that can run on weights given by the caller.

    A subclass builds its layers, says which of its blocks can be modulated, and defines
    `functional_call`.
    """

    #: whether `functional_call` may be compiled by XLA
    supports_xla = True
    #: whether `functional_call` takes `support_x`, the support set of the tasks being predicted
    uses_support = False

    @property
    def modulated_widths(self) -> tuple[int, ...]:
        """Units or channels of each block that can be modulated; known once built."""
        raise NotImplementedError

    @property
    def head(self) -> Sequence:
        """The variables of the output layer, for `InnerLoop(head_only=True)`; known once built."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which of its weights are the output layer's; "
            "define the property `head`."
        )

    def functional_call(self, weights: Sequence, x, modulation: Sequence | None = None):
        """Runs the network on other weights than its own.

        Args:
            weights: one tensor for each of `trainable_variables`, in that order; each of the
                variable's shape, or with a leading task axis `[T, ...]`.
            x: `[T, N, ...]` inputs of T tasks.
            modulation: for each block `(scale [T, width], shift [T, width] or None)` or None;
                None for no modulation.

        Returns:
            `[T, N, ...]` outputs.
        """
        raise NotImplementedError

    def call(self, x):
        """Runs the network on its own weights, `[N, ...]` or `[T, N, ...]`."""
        return self.functional_call([tf.convert_to_tensor(w) for w in self.trainable_variables], x)


@keras.saving.register_keras_serializable("mmaml_tf")
class MLP(TaskNetwork):
    """A multilayer perceptron, by default the published regression network.

    Biases start at zero. Modulation acts on the pre-activation of each hidden layer, never on the
    output layer.

    Args:
        hidden: units of the hidden layers.
        outputs: size of the output.
        bias_transformation: size of a learned vector, starting at zero and adapted with the
            other weights, that is joined to the input (Finn et al. 2017b; the MAML baseline of
            the MMAML paper uses 20). 0 for none.
        stddev: standard deviation of the initial kernels, which are normal; None for
            Xavier-uniform ones.
        seed: seed of the initialisation.
        activation: name of a Keras activation, that of the hidden layers.

    Raises:
        ValueError: for sizes that are not positive.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (100, 100, 100),
        outputs: int = 1,
        bias_transformation: int = 0,
        stddev: float | None = 0.01,
        seed: int = 0,
        activation: str = "relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not hidden or min(*hidden, outputs) < 1 or bias_transformation < 0:
            raise ValueError(
                f"MLP(hidden={hidden}, outputs={outputs}, bias_transformation="
                f"{bias_transformation}): sizes must be positive, with at least one hidden layer."
            )
        self.hidden = tuple(hidden)
        self.outputs_size = outputs
        self.bias_transformation = bias_transformation
        self.stddev = stddev
        self.seed = seed
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self.dense = [
            layers.Dense(units, self._initializer(i), dtype=self.dtype_policy)
            for i, units in enumerate((*self.hidden, outputs))
        ]

    def _initializer(self, layer):
        seed = layers.derive_seed(self.seed, layer)
        if self.stddev is None:
            return keras.initializers.GlorotUniform(seed)
        return keras.initializers.RandomNormal(stddev=self.stddev, seed=seed)

    @property
    def modulated_widths(self):
        """The hidden layers' units."""
        return self.hidden

    @property
    def head(self):
        """Kernel and bias of the output layer."""
        return self.dense[-1].trainable_variables

    def build(self, input_shape):
        """Creates the weights for inputs `[..., D]`.

        Raises:
            ValueError: unless the inputs of a task are vectors.
        """
        if len(input_shape) not in (2, 3) or input_shape[-1] is None:
            raise ValueError(
                f"MLP takes inputs of shape [N, features] or [T, N, features], got "
                f"{tuple(input_shape)}."
            )
        size = input_shape[-1] + self.bias_transformation
        for dense in self.dense:
            dense.build((None, size))
            size = dense.units
        if self.bias_transformation:
            self.input_bias = self.add_weight(
                shape=(self.bias_transformation,), initializer="zeros", name="input_bias"
            )
        self.built = True

    def functional_call(self, weights, x, modulation=None):
        """See `TaskNetwork.functional_call`."""
        weights = dict(zip((id(v) for v in self.trainable_variables), weights, strict=True))
        z = x
        if self.bias_transformation:
            bias = weights[id(self.input_bias)]
            bias = layers.expand_to(bias, x) if bias.shape.rank == 2 else bias
            ones = tf.ones_like(x[..., :1])
            z = tf.concat([x, ones * bias], axis=-1)
        last = len(self.dense) - 1
        for block, dense in enumerate(self.dense):
            z = layers.dense(z, weights[id(dense.kernel)], weights[id(dense.bias)])
            if block < last:
                z = self._activate(layers.modulate(z, modulation[block] if modulation else None))
        return z

    def get_config(self):
        """Returns the constructor arguments."""
        return {
            "hidden": self.hidden,
            "outputs": self.outputs_size,
            "bias_transformation": self.bias_transformation,
            "stddev": self.stddev,
            "seed": self.seed,
            "activation": self.activation,
            "name": self.name,
            "dtype": self.dtype_policy,
        }


@keras.saving.register_keras_serializable("mmaml_tf")
class ConvNet(TaskNetwork):
    """Strided convolutions with batch statistics, the published classification network.

    Each block is a 3×3 convolution of stride 2, normalisation by batch statistics without learned
    scale or shift, the modulation, and a ReLU. The mean over positions goes to a linear layer.
    Kernels start Xavier-uniform, biases at zero. Images are `[H, W, C]` with values in [0, 1].

    The statistics are those of the batch at hand, in training as at inference: the support set
    while adapting, and for the queries either the queries themselves ("query", transductive, as
    published: a prediction depends on the other queries) or the support set ("support").

    Args:
        filters: channels of each block.
        outputs: number of classes N, or None to stop at the mean over positions.
        statistics: "query" or "support".
        form: how per-task kernels are applied, see `layers.conv2d`.
        seed: seed of the initialisation.

    Raises:
        ValueError: for sizes that are not positive, or unknown statistics or form.
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128, 256),
        outputs: int | None = 5,
        statistics: str = "query",
        form: str = "auto",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not filters or min(filters) < 1 or (outputs is not None and outputs < 1):
            raise ValueError(
                f"ConvNet(filters={filters}, outputs={outputs}): sizes must be positive, with at "
                "least one block."
            )
        if statistics not in ("query", "support"):
            raise ValueError(f'statistics is {statistics!r}; expected "query" or "support".')
        if form not in layers.CONVOLUTION_FORMS:
            raise ValueError(f"form is {form!r}; expected one of {layers.CONVOLUTION_FORMS}.")
        self.filters = tuple(filters)
        self.outputs_size = outputs
        self.statistics = statistics
        self.form = form
        self.seed = seed
        initializers = [
            keras.initializers.GlorotUniform(layers.derive_seed(seed, i))
            for i in range(len(self.filters) + 1)
        ]
        self.convolutions = [
            layers.Conv2D(size, initializer, dtype=self.dtype_policy)
            for size, initializer in zip(self.filters, initializers, strict=False)
        ]
        self.dense = None
        if outputs is not None:
            self.dense = layers.Dense(outputs, initializers[-1], dtype=self.dtype_policy)

    @property
    def modulated_widths(self):
        """The blocks' channels."""
        return self.filters

    @property
    def uses_support(self):
        """Whether the statistics are the support set's."""
        return self.statistics == "support"

    @property
    def head(self):
        """Kernel and bias of the linear layer."""
        return [] if self.dense is None else self.dense.trainable_variables

    def build(self, input_shape):
        """Creates the weights for images `[..., H, W, C]`.

        Raises:
            ValueError: unless the inputs of a task are images.
        """
        if len(input_shape) not in (4, 5) or None in input_shape[-3:]:
            raise ValueError(
                "ConvNet takes images of shape [N, H, W, C] or [T, N, H, W, C], got "
                f"{tuple(input_shape)}."
            )
        size = input_shape[-1]
        for convolution in self.convolutions:
            convolution.build((None, None, None, None, size))
            size = convolution.filters
        if self.dense is not None:
            self.dense.build((None, size))
        self.built = True

    def functional_call(self, weights, x, modulation=None, support_x=None):
        """See `TaskNetwork.functional_call`.

        Args:
            weights: see there.
            x: `[T, N, H, W, C]`.
            modulation: see there.
            support_x: `[T, K, H, W, C]` images whose statistics are used with
                `statistics="support"`; by default those of x.

        Returns:
            `[T, N, outputs]` logits, or features `[T, N, filters[-1]]` without outputs.
        """
        weights = (tf.cast(w, self.compute_dtype) for w in weights)
        weights = dict(zip((id(v) for v in self.trainable_variables), weights, strict=True))
        reference = None  # number of leading points whose statistics are used; None for all
        if self.statistics == "support" and support_x is not None:
            reference = support_x.shape[1] or tf.shape(support_x)[1]
            x = tf.concat([support_x, x], axis=1)
        z = tf.cast(x, self.compute_dtype)
        for block, convolution in enumerate(self.convolutions):
            z = layers.conv2d(z, weights[id(convolution.kernel)], form=self.form)
            z = layers.batch_normalise(z, statistics_of=z[:, :reference])
            z = tf.nn.relu(layers.modulate(z, modulation[block] if modulation else None))
        z = tf.reduce_mean(z[:, reference:], axis=[2, 3])
        if self.dense is not None:
            z = layers.dense(z, weights[id(self.dense.kernel)], weights[id(self.dense.bias)])
        return tf.cast(z, self.variable_dtype)

    def call(self, x):
        """Runs the network on its own weights, images `[N, H, W, C]` or `[T, N, H, W, C]`."""
        single = len(x.shape) == 4
        outputs = super().call(x[None] if single else x)
        return outputs[0] if single else outputs

    def get_config(self):
        """Returns the constructor arguments."""
        return {
            "filters": self.filters,
            "outputs": self.outputs_size,
            "statistics": self.statistics,
            "form": self.form,
            "seed": self.seed,
            "name": self.name,
            "dtype": self.dtype_policy,
        }


@keras.saving.register_keras_serializable("mmaml_tf")
class KerasNetwork(TaskNetwork):
    """Makes any built Keras model a task network, unchanged.

    The model is run once per task by `tf.vectorized_map` over `stateless_call`, so that it costs
    no Python loop; XLA cannot compile that form. A convolution whose kernel differs by task is
    the one operation that runs in a loop over tasks inside the graph. Modulation is folded into
    the weights of Dense and convolution layers, kernel·scale and bias·scale + shift, which equals
    modulating the pre-activation. What the model updates besides its trained weights (moving
    averages) is discarded: batch normalisation uses the statistics of the batch at hand. Random
    layers (dropout, noise) are off, so that a task's adaptation is a function of its data.

    Args:
        model: a built Keras model: functional, sequential or subclassed.
        modulated: names of the Dense and convolution layers that can be modulated, in order; by
            default all of them but the last, which is taken for the output layer.

    Raises:
        ValueError: if the model is not built, has no trainable weight, has both random layers
            and batch normalisation, or `modulated` names a layer that does not exist.
    """

    supports_xla = False

    def __init__(self, model: keras.Model, modulated: Sequence[str] | None = None, **kwargs):
        super().__init__(**kwargs)
        if not model.built:
            raise ValueError(
                f"the Keras model {model.name!r} is not built; call it once on data or call "
                "model.build(input_shape) before it becomes a task network."
            )
        if not model.trainable_variables:
            raise ValueError(f"the Keras model {model.name!r} has no trainable weights to adapt.")
        self.model = model
        self.modulated = None if modulated is None else tuple(modulated)
        self._training = _training_mode(model)
        affine = {layer.name: layer for layer in _affine_layers(model)}
        names = list(affine)[:-1] if modulated is None else self.modulated
        for name in names:
            if name not in affine:
                raise ValueError(
                    f"{name!r} is no Dense or convolution layer of {model.name!r}; those are "
                    f"{sorted(affine)}."
                )
        self._modulated_layers = [affine[name] for name in names]
        self.built = True

    @property
    def modulated_widths(self):
        """Units or filters of the modulated layers."""
        for layer in self._modulated_layers:
            following = _normalisation_after(self.model, layer)
            if following is not None:
                raise ValueError(
                    f"layer {layer.name!r} cannot be modulated: the normalisation "
                    f"{following!r} follows it, and what is folded into weights before a "
                    "normalisation is undone by it. Name other layers with "
                    "KerasNetwork(model, modulated=[...]), or write a TaskNetwork."
                )
        return tuple(layer.kernel.shape[-1] for layer in self._modulated_layers)

    @property
    def head(self):
        """The weights of the model's last Dense or convolution layer."""
        return _affine_layers(self.model)[-1].trainable_variables

    def build(self, input_shape):
        """Does nothing: the model is built already."""

    def call(self, x):
        """Runs the model itself on `[N, ...]`."""
        return self.model(x)

    def functional_call(self, weights, x, modulation=None):
        """See `TaskNetwork.functional_call`."""
        variables = self.model.trainable_variables
        per_task = [w.shape.rank > len(v.shape) for w, v in zip(weights, variables, strict=True)]
        folded = self._folded(weights, per_task, modulation)
        mapped = [w for w, is_mapped in zip(*folded, strict=True) if is_mapped]

        training = {"training": self._training} if self.model._call_has_training_arg else {}

        def one_task(inputs):
            x_task, mapped_task = inputs
            mapped_task = iter(mapped_task)
            task_weights = [next(mapped_task) if m else w for w, m in zip(*folded, strict=True)]
            with _exact_moments():
                outputs, _ = self.model.stateless_call(
                    task_weights, self.model.non_trainable_variables, x_task, **training
                )
            return outputs

        return tf.vectorized_map(one_task, (x, mapped))

    def _folded(self, weights, per_task, modulation):
        """Returns weights with the modulation folded in, and which have a task axis."""
        weights, per_task = list(weights), list(per_task)
        if modulation is None:
            return weights, per_task
        index = {id(v): i for i, v in enumerate(self.model.trainable_variables)}
        for layer, affine in zip(self._modulated_layers, modulation, strict=True):
            if affine is None:
                continue
            scale, shift = affine
            kernel = index.get(id(layer.kernel))
            bias = index.get(id(layer.bias)) if layer.use_bias else None
            if kernel is None or (shift is not None and bias is None):
                raise ValueError(
                    f"layer {layer.name!r} cannot be modulated: it needs a trainable kernel, and "
                    "a trainable bias where the modulation shifts (use_bias=True)."
                )
            ones = [1] * (len(layer.kernel.shape) - 1)
            weights[kernel] *= tf.reshape(scale, [-1, *ones, scale.shape[-1]])
            per_task[kernel] = True
            if bias is not None:
                weights[bias] = weights[bias] * scale + (0.0 if shift is None else shift)
                per_task[bias] = True
        return weights, per_task

    def get_config(self):
        """Returns the constructor arguments."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "modulated": self.modulated,
            "name": self.name,
            "dtype": self.dtype_policy,
        }

    @classmethod
    def from_config(cls, config):
        """Makes the wrapper, and the model in it, from what `get_config` returned."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(model, **{key: value for key, value in config.items() if key != "model"})


@contextlib.contextmanager
def _exact_moments():
    """Lets Keras's batch normalisation use `layers.moments`; see there."""
    # Keras offers no way to choose them. Whoever else meets the replacement gets equal values.
    original = tf.nn.moments
    tf.nn.moments = layers.moments
    try:
        yield
    finally:
        tf.nn.moments = original


def as_task_network(network: keras.Model) -> TaskNetwork:
    """Returns `network` itself if it is a TaskNetwork, else wraps the Keras model."""
    if isinstance(network, TaskNetwork):
        return network
    if isinstance(network, keras.Model):
        return KerasNetwork(network)
    raise ValueError(
        f"a task network is a mmaml_tf.networks.TaskNetwork or a keras.Model, got "
        f"{type(network).__name__}."
    )


_AFFINE_LAYERS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.RMSNormalization,
)
# Layers that leave a normalisation after them as bad a place as one right behind the kernel.
_TRANSPARENT_LAYERS = (keras.layers.Dropout, keras.layers.SpatialDropout2D)


def _training_mode(model):
    """Returns the mode to run the model in: training, for batch statistics, unless it is random."""
    random = [layer.name for layer in model._flatten_layers() if layer._seed_generators]
    normalisations = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if random and normalisations:
        raise ValueError(
            f"the Keras model {model.name!r} has random layers {random}, which a task network "
            f"leaves off, and batch normalisation {normalisations}, which it runs in training "
            "mode; Keras has one mode for both. Leave the random layers out."
        )
    return not random


def _affine_layers(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, _AFFINE_LAYERS)]


def _normalisation_after(model, layer):
    """Returns the name of a normalisation that acts on the layer's pre-activation, or None."""
    if layer.activation is not keras.activations.linear:
        return None
    # Keras exports no class for functional models; they list their operations.
    if isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        return _consuming_normalisation(layer)
    # A subclassed model does not tell who consumes a layer's output: any normalisation counts.
    for other in model._flatten_layers():
        if isinstance(other, _NORMALISATIONS):
            return other.name
    return None


def _consuming_normalisation(layer):
    for node in layer._outbound_nodes:
        consumer = node.operation
        if isinstance(consumer, _NORMALISATIONS):
            return consumer.name
        if isinstance(consumer, _TRANSPARENT_LAYERS):
            found = _consuming_normalisation(consumer)
            if found is not None:
                return found
    return None
