"""What the classes of a task say of a classifier: prototypes, heads from them, absent classes."""

import contextlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mmaml_tf import layers


def prototypes(features: tf.Tensor, labels: tf.Tensor, ways: int) -> tf.Tensor:
    """Returns the mean features of each class of a support set, `[T, N, F]`; zero of an absent one.

    Args:
        features: `[T, K, F]`.
        labels: `[T, K]` or `[T, K, 1]` class labels.
        ways: number of classes N.
    """
    labels = tf.reshape(labels, tf.shape(labels)[:2])
    members = tf.one_hot(labels, ways, axis=1, dtype=features.dtype)  # [T, N, K]
    counts = tf.reduce_sum(members, axis=2, keepdims=True)
    return tf.matmul(members, features) / tf.maximum(counts, 1)


def head_of_prototypes(means: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the linear layer whose logits are minus the squared distances to prototypes.

    W = 2 c and b = −|c|², up to |f|², which all classes have in common (Triantafillou et al. 2020,
    section 3.2).

    Args:
        means: prototypes c `[T, N, F]`.

    Returns:
        A kernel `[T, F, N]` and a bias `[T, N]`.
    """
    return 2 * tf.linalg.matrix_transpose(means), -tf.reduce_sum(tf.square(means), axis=2)


def check_head(network, point_shape: Sequence, ways: int | None) -> None:
    """Raises ValueError unless a network's outputs are one linear layer of its features.

    Args:
        network: a `TaskNetwork`.
        point_shape: shape of one point of a task.
        ways: number of classes N, or None where the targets are no class labels.
    """
    if ways is None:
        raise ValueError(
            'head="prototypes": the prototypes are of classes, and the targets are no class '
            'labels; give head="learned".'
        )
    rng = np.random.default_rng(0)
    weights = [tf.constant(rng.normal(size=v.shape), v.dtype) for v in network.trainable_variables]
    x = tf.constant(rng.normal(size=(1, 8, *point_shape)), network.variable_dtype)
    by_variable = dict(zip(map(id, network.trainable_variables), weights, strict=True))
    head = [by_variable[id(v)] for v in network.head]
    if [len(w.shape) for w in head] == [2, 1] and head[0].shape[1] == ways:
        outputs = network.functional_call(weights, x)
        # Where layers follow the head, they may not do without it.
        with contextlib.suppress(ValueError, tf.errors.InvalidArgumentError):
            features = network.head_inputs(weights, x)
            difference = tf.abs(layers.dense(features, *head) - outputs)
            # Networks that compute in half floats are coarse.
            close = tf.reduce_max(difference) <= 0.02 * tf.reduce_max(tf.abs(outputs))
            if close and features.shape.rank == 3:
                return
    raise ValueError(
        f'head="prototypes": the outputs of {network.name!r} are not one linear layer with a bias, '
        'without activation and not frozen; give head="learned", or such a network.'
    )


def mask_absent_classes(logits: tf.Tensor, support_y: tf.Tensor) -> tf.Tensor:
    """Takes the outputs beyond each task's largest support label out of the softmax."""
    labels = tf.reshape(tf.cast(support_y, tf.int32), tf.shape(support_y)[:2])
    ways = 1 + tf.reduce_max(labels, axis=1)
    present = tf.sequence_mask(ways, logits.shape[-1])[:, None]
    # A finite number: infinities would make the gradients of the softmax undefined.
    return tf.where(present, logits, tf.constant(-1e9, logits.dtype))
