"""Trajectory encoder: the rollouts of a task -> task embedding `[T, E]`."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.arguments import whole_number
from mmaml_tf.rl.trajectories import Trajectories
from mmaml_tf.seeds import derive_seed


@keras.saving.register_keras_serializable("mmaml_tf")
class TrajectoryEncoder(keras.layers.Layer):
    """A GRU over each whole rollout, averaged over the rollouts of a task.

    Each step is [observation, action, reward]. The GRU's last output goes through two linear
    layers with a ReLU between them; their mean over rollouts through two more gives the
    embedding (the published encoder, which is meant to read whole rollouts; its hard sigmoid is
    the plain one here). Weights start as Keras has them: Xavier-uniform, recurrent orthogonal.

    Args:
        units: units of every layer, and size E of the embedding.
        window: steps of the pieces that each rollout is cut into, which are then read as rollouts
            are, all of them; None for whole rollouts. The published code reads 20 pieces of 5
            steps, from a task's first 100 steps alone.
        seed: seed of the initialisation.

    Raises:
        ValueError: if units, window or seed is no whole number, or one of the first two less
            than 1.
    """

    def __init__(self, units: int = 64, window: int | None = None, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.units = units = whole_number("units", units)
        self.window = None if window is None else whole_number("window", window)
        self.seed = seed = whole_number("seed", seed, None)
        self.gru = keras.layers.GRU(
            units,
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, "GRU", "kernel")),
            recurrent_initializer=keras.initializers.Orthogonal(
                seed=derive_seed(seed, "GRU", "recurrent")
            ),
            reset_after=False,
            # The fused kernel does not run under XLA.
            use_cudnn=False,
            dtype=self.dtype_policy,
        )
        self.dense = [
            layers.Dense(
                units,
                keras.initializers.GlorotUniform(derive_seed(seed, "TrajectoryEncoder", i)),
                dtype=self.dtype_policy,
            )
            for i in range(4)
        ]

    @property
    def embedding_size(self) -> int:
        """Size E of the embedding."""
        return self.units

    def build(self, observations_shape: Sequence, actions_shape: Sequence) -> None:
        """Creates the weights for observations `[T, R, L, O]` and actions `[T, R, L, A]`."""
        self.gru.build((None, None, observations_shape[-1] + actions_shape[-1] + 1))
        for dense in self.dense:
            dense.build((None, self.units))
        self.built = True

    def call(self, trajectories: Trajectories) -> tf.Tensor:
        """Embeds the rollouts of each task as `[T, E]`.

        Raises:
            ValueError: if the rollouts cannot be cut into whole windows.
        """
        observations, actions, rewards, mask = trajectories
        steps = tf.concat([observations, actions, rewards[..., None]], axis=-1) * mask[..., None]
        length = steps.shape[2]
        if self.window and length and length % self.window:
            raise ValueError(
                f"rollouts of {length} steps cannot be cut into windows of {self.window}; choose a "
                "window that divides the horizon, or None."
            )
        sequence = self.window or length or tf.shape(steps)[2]
        sequences = tf.reshape(steps, [-1, sequence, steps.shape[3]])
        per_sequence, joining, first, second = self.dense
        z = joining(tf.nn.relu(per_sequence(self.gru(sequences))))
        z = tf.reduce_mean(tf.reshape(z, [tf.shape(steps)[0], -1, self.units]), axis=1)
        return second(tf.nn.relu(first(z)))

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        own = {"units": self.units, "window": self.window, "seed": self.seed}
        return super().get_config() | own
