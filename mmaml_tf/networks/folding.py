"""Modulation of wrapped Keras models, folded into the weights of their layers."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mmaml_tf.networks import keras_layers


def fold(
    variables: Sequence, layers: Sequence, weights: Sequence, modulation: Sequence | None
) -> tuple[list, list]:
    """Returns weights with a modulation folded in, and for each whether it has a task axis.

    Args:
        variables: the model's trainable variables.
        layers: those that can be modulated.
        weights: one tensor for each variable, see `TaskNetwork.functional_call`.
        modulation: for each layer how it is changed or None; None for no modulation.

    Raises:
        ValueError: for a layer that lacks a weight that its modulation needs.
    """
    weights = list(weights)
    per_task = [w.shape.rank > len(v.shape) for w, v in zip(weights, variables, strict=True)]
    index = {id(v): i for i, v in enumerate(variables)}
    for layer, change in zip(layers, modulation or [None] * len(layers), strict=True):
        if change is None:
            continue
        own = [index.get(id(w)) for w in (keras_layers.kernel(layer), keras_layers.bias(layer))]
        kernel, bias = (
            None if i is None else weights[i] if per_task[i] else weights[i][None] for i in own
        )
        folded = (None, None) if kernel is None else change.fold(kernel, bias)
        if kernel is None or (bias is None and folded[1] is not None):
            raise ValueError(
                f"layer {layer.name!r} cannot be modulated: it needs a trainable kernel, and a "
                "trainable bias where the modulation shifts (use_bias=True)."
            )
        for i, weight in zip(own, folded, strict=True):
            if i is not None:
                weights[i], per_task[i] = weight, True
    return weights, per_task


def check(network, layers: Sequence, modulation: Sequence, points: tf.Tensor) -> None:
    """Raises ValueError where modulating a layer makes no difference to a network's outputs.

    Args:
        network: a `KerasNetwork`.
        layers: those that can be modulated.
        modulation: see `TaskNetwork.check_modulation`.
        points: `[N, ...]` points that the network can take.
    """
    blocks = [block for block, change in enumerate(modulation) if change is not None]
    # Task 0 has the first modulation; each other task has the second one in one layer.
    varied = [
        None if change is None else _rows(change, [int(t == block) for t in (None, *blocks)])
        for block, change in enumerate(modulation)
    ]
    rng = np.random.default_rng(1)
    # Of one size whatever the initialisation, so that no epsilon hides what is undone.
    weights = [
        tf.constant(
            rng.normal(size=v.shape) * (2 / max(1, np.prod(v.shape[:-1]))) ** 0.5
            if len(v.shape) > 1
            else rng.uniform(0.5, 1.5, v.shape),
            v.dtype,
        )
        for v in network.trainable_variables
    ]
    x = tf.tile(points[None], [len(blocks) + 1] + [1] * points.shape.rank)
    support = x if network.uses_support else None
    outputs = network.run(weights, x, varied, support, training=True).outputs.numpy()
    spread = np.ptp(outputs[0], axis=0).max() + 1e-12
    for task, block in enumerate(blocks, start=1):
        if np.abs(outputs[task] - outputs[0]).max() < 0.02 * spread:
            raise ValueError(
                f"layer {layers[block].name!r} cannot be modulated: it makes no difference to the "
                f"outputs of {network.model.name!r}. A normalisation that follows it undoes what "
                "is folded into its weights. Name other layers with KerasNetwork(model, "
                "modulated=[...]), such as the normalisation itself."
            )


def _rows(change, rows):
    """Returns how a block is changed for other tasks, each like one of the given ones."""
    return tf.nest.map_structure(lambda t: None if t is None else tf.gather(t, rows), change)
