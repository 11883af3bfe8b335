"""Trajectory encoder: the rollouts of a task -> task embedding `[T, E]`."""

import keras
import tensorflow as tf

from mmaml_tf import layers
from mmaml_tf.rl.trajectories import Trajectories


@keras.saving.register_keras_serializable("mmaml_tf")
class TrajectoryEncoder(keras.layers.Layer):
    """A GRU over each whole rollout, averaged over the rollouts of a task.

    Each step is [observation, action, reward]. The GRU's last output goes through two linear
    layers with a ReLU between them; their mean over rollouts through two more gives the
    embedding (the published encoder, which is meant to read whole rollouts; its hard sigmoid is
    the plain one here). Weights start as Keras has them: Xavier-uniform, recurrent orthogonal.

    Args:
        units: units of every layer, and size E of the embedding.
        seed: seed of the initialisation.

    Raises:
        ValueError: if units is less than 1.
    """

    def __init__(self, units: int = 64, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units is {units}; it must be at least 1.")
        self.units = units
        self.seed = seed
        self.gru = keras.layers.GRU(
            units,
            kernel_initializer=keras.initializers.GlorotUniform(layers.derive_seed(seed, 0)),
            recurrent_initializer=keras.initializers.Orthogonal(seed=layers.derive_seed(seed, 1)),
            reset_after=False,
            # The fused kernel does not run under XLA.
            use_cudnn=False,
            dtype=self.dtype_policy,
        )
        self.dense = [
            layers.Dense(
                units,
                keras.initializers.GlorotUniform(layers.derive_seed(seed, i)),
                dtype=self.dtype_policy,
            )
            for i in range(2, 6)
        ]

    @property
    def embedding_size(self) -> int:
        """Size E of the embedding."""
        return self.units

    def build(self, observations_shape, actions_shape):
        """Creates the weights for observations `[T, R, L, O]` and actions `[T, R, L, A]`."""
        self.gru.build((None, None, observations_shape[-1] + actions_shape[-1] + 1))
        for dense in self.dense:
            dense.build((None, self.units))
        self.built = True

    def call(self, trajectories: Trajectories):
        """Embeds the rollouts of each task as `[T, E]`."""
        observations, actions, rewards, mask = trajectories
        steps = tf.concat([observations, actions, rewards[..., None]], axis=-1) * mask[..., None]
        shape = tf.shape(steps)
        sequences = tf.reshape(steps, [shape[0] * shape[1], *_known(steps.shape[2:], shape)])
        per_rollout, joining, first, second = self.dense
        z = joining(tf.nn.relu(per_rollout(self.gru(sequences))))
        z = tf.reduce_mean(tf.reshape(z, [shape[0], shape[1], self.units]), axis=1)
        return second(tf.nn.relu(first(z)))

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {"units": self.units, "seed": self.seed}


def _known(axes, shape):
    """Returns sizes of the axes from the third on: numbers where they are known."""
    return [size or shape[i + 2] for i, size in enumerate(axes)]
