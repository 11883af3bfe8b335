"""A bank of learners, one for each mode: the baseline that knows a task's mode."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import networks as networks_lib
from mmaml_tf.checks import assert_index
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.keras_internals import flat_layers
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.names import checked


class Bank(MetaLearner):
    """One independent learner per mode, chosen by each task's true mode.

    The outer loss is the sum over modes of the mean over that mode's tasks, each network's
    gradient is clipped on its own, and each mode has a copy of an update rule that learns, so that
    training the bank equals training its members apart, as long as every batch has tasks of all
    modes and no update is skipped.

    Args:
        networks: one task network per mode, initialised independently.
        modes: names of the modes, one per network.
        inner_loop: see `MetaLearner`.
        **kwargs: see `MetaLearner`.

    Raises:
        ValueError: for another number of networks than of modes, or networks that differ in more
            than their initial weights.
    """

    without = ("encoder", "modulation")
    needs_mode = True

    @checked()
    def __init__(
        self,
        networks: Sequence[keras.Model],
        *,
        modes: Sequence[str],
        inner_loop: InnerLoop | None = None,
        **kwargs,
    ):
        networks = list(networks)
        if len(networks) != len(modes) or not networks:
            raise ValueError(
                f"{len(networks)} networks for {len(modes)} modes; {type(self).__name__} needs "
                "one per mode."
            )
        if len(set(map(id, networks))) < len(networks):
            raise ValueError(
                f"a network is given twice; {type(self).__name__} trains one of its own for each "
                "mode."
            )
        super().__init__(networks[0], modes=modes, inner_loop=inner_loop, **kwargs)
        others = [networks_lib.as_task_network(network) for network in networks[1:]]
        self.networks = [self.network, *others]
        for other in others:
            _check_alike(self.network, other)

    @classmethod
    def from_learners(cls, learners: Sequence[MetaLearner], modes: Sequence[str]) -> "Bank":
        """Joins learners, each trained on one mode, into a bank.

        Args:
            learners: built learners that share network architecture and all settings.
            modes: the mode each was trained on.

        Raises:
            ValueError: for no learners, learners that modulate, another number than of modes, or
                other settings.
        """
        if not learners:
            raise ValueError(f"{cls.__name__} needs at least one learner; none was given.")
        if any(learner.encoder is not None for learner in learners):
            raise ValueError(
                f"a {cls.__name__} joins task networks alone; learners with an encoder would lose "
                "their modulation."
            )
        first = learners[0]
        parts = ("network", "encoder", "modulation", "modes", "name")
        settings, *others = (
            {k: v for k, v in learner.get_config().items() if k not in parts}
            | {"inner_loop": learner.inner_loop.settings()}
            for learner in learners
        )
        for other in others:
            if differing := sorted(k for k in settings if settings[k] != other.get(k)):
                raise ValueError(
                    f"the learners of a {cls.__name__} must share all settings; {differing} "
                    "differ between the first and another."
                )
        del settings["inner_loop"], settings["trainable_layers"]
        networks = [learner.network for learner in learners]
        # What the members learned is copied, so that they keep it for themselves.
        inner_loop = type(first.inner_loop).from_config(first.inner_loop.get_config())
        bank = cls(networks, modes=modes, inner_loop=inner_loop, **settings)
        bank.build(first.support_shapes)
        for rule, learner in zip(inner_loop.rules, learners, strict=False):
            rule.set_weights(learner.inner_loop.update.get_weights())
        return bank

    def build(self, input_shape: Sequence) -> None:
        """See `MetaLearner.build`; networks that compute differently are refused here, too."""
        super().build(input_shape)
        for other in self.networks[1:]:
            self._check_same_function(other)

    def _check_same_function(self, other):
        """Raises ValueError where another network makes other outputs of the same weights."""
        first = self.network
        _check_alike(first, other)
        if any(tf.as_dtype(v.dtype).is_floating for v in first.state):
            raise ValueError(
                f"the networks of a {type(self).__name__} have moving averages of their own, and "
                'one forward pass serves all; use statistics="query" or "support".'
            )
        point = self._network_shape(self.support_shapes[0])[2:]
        x = keras.random.normal((1, 4, *point), dtype=self.compute_dtype, seed=1)
        outputs = [network.run(self._shared_weights(), x).outputs for network in (first, other)]
        if not np.allclose(*outputs, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"the networks of a bank must be alike but for their initial weights; "
                f"{first.name!r} and {other.name!r} make other outputs of the same weights: their "
                "layers' settings or frozen weights differ."
            )

    def _networks(self):
        return self.networks

    def initial_weights(self, tasks: int, mode: tf.Tensor | None = None) -> list:
        """See `MetaLearner.initial_weights`; raises ValueError when the modes are not given."""
        del tasks
        choice = self._choice(mode)
        banks = zip(*(network.trainable_variables for network in self.networks), strict=True)
        return [tf.tensordot(choice, tf.stack([v.value for v in bank]), axes=1) for bank in banks]

    def _choice(self, mode):
        """Returns the one-hot choice of each task's network, `[T, M]`."""
        if mode is None:
            raise ValueError(
                f"{type(self).__name__} chooses a network by each task's mode, but no mode was "
                f"given; pass mode=..., the index in {self.modes}."
            )
        return tf.one_hot(mode, len(self.networks), dtype=tf.as_dtype(self.compute_dtype))

    def task_weights(self, tasks: int, mode: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the weights of the sum of the modes' mean losses."""
        del tasks
        of_mode = self._choice(mode)
        counts = tf.reduce_sum(of_mode, axis=0)
        # The one-hot choice of a mode that does not exist would be a network of zeros.
        message = f"mode must be the index of one of {self.modes}."
        with tf.control_dependencies(assert_index(mode, len(self.networks), message)):
            return 1 / tf.linalg.matvec(of_mode, counts)

    def gradient_groups(self) -> list[list]:
        """One group per mode, and one per mode of what its update rule learns."""
        _, *others = super().gradient_groups()
        return [*(network.trainable_variables for network in self.networks), *others]

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        config = super().get_config()
        del config["network"]
        return config | {
            "networks": [keras.saving.serialize_keras_object(network) for network in self.networks]
        }


# What decides initial weights, and may differ between the networks of a bank.
_INITIAL = ("name", "dtype", "seed", "initial_std")


def _check_alike(network, other):
    """Raises ValueError where networks compute differently from the same weights."""
    differing = [] if type(network) is type(other) else ["types"]
    if network.statistics != other.statistics:
        differing.append("statistics")
    if not (differing or isinstance(network, networks_lib.KerasNetwork)):
        settings, others = network.get_config(), other.get_config()
        differing = [k for k in _computing(settings) if settings[k] != others[k]]
    elif not differing and _layer_settings(network.model) != _layer_settings(other.model):
        differing.append("settings of layers")
    shapes, others = ([tuple(v.shape) for v in n.trainable_variables] for n in (network, other))
    if not differing and network.built and other.built and shapes != others:
        differing = ["shapes of weights"]
    if differing:
        raise ValueError(
            f"the networks of a bank must be alike but for their initial weights; {differing} "
            f"differ between {network.name!r} and {other.name!r}."
        )


def _layer_settings(model):
    """Returns what decides how the layers of a Keras model compute and train."""
    leaves = [layer for layer in flat_layers(model) if not flat_layers(layer, include_self=False)]
    settings = []
    for layer in leaves:
        settings.append((type(layer), _computing(layer.get_config()), layer.trainable))
    return settings


def _computing(settings):
    """Returns those of a layer's settings that do not only decide its initial weights."""
    return {
        key: value
        for key, value in settings.items()
        if key not in _INITIAL and not key.endswith("_initializer")
    }
