"""How any Keras layer or model is run as an encoder."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def run_encoder(encoder: keras.layers.Layer, data: Sequence, training: bool) -> tf.Tensor:
    """Returns what an encoder gives for the data of tasks, `[T, E]`.

    Args:
        encoder: a Keras layer. Functional and sequential models take their inputs as one argument,
            and as many as they have.
        data: what encoders take: support_x and support_y, or trajectories alone.
        training: whether random layers and moving averages are in use.
    """
    inputs = getattr(encoder, "inputs", None)
    if inputs:
        data = data[: len(inputs)]
        data = (data[0] if len(data) == 1 else list(data),)
    return encoder(*data, training=training)
