"""Initializers of Keras, one for each layer."""

import keras

from mmaml_tf.arguments import whole_number
from mmaml_tf.seeds import derive_seed


def get(name: str, value, default=None):
    """Returns a Keras initializer for an initializer, its name or configuration.

    Args:
        name: the argument's name, for the message.
        value: what the user gave.
        default: the same, for a value of None.

    Raises:
        ValueError: for anything else.
    """
    try:
        return keras.initializers.get(default if value is None else value)
    except (ValueError, TypeError):
        raise ValueError(
            f"{name}={value!r}: expected a Keras initializer or its name, such as "
            '"glorot_uniform", or None for the default.'
        ) from None


def for_layer(initializer, seed: int, *purpose: str | int):
    """Returns a copy of an initializer whose random values are a layer's own.

    Args:
        initializer: a Keras initializer. Its own seed, if it has one, joins what is derived.
        seed: the seed of the whole network.
        *purpose: what the values are for, see `derive_seed`.

    Raises:
        ValueError: for an initializer whose seed is no whole number.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer  # a function of shape and dtype
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    if config["seed"] is not None:
        purpose += (whole_number("the initializer's seed", config["seed"], None),)
    return type(initializer).from_config(config | {"seed": derive_seed(seed, *purpose)})


def for_part(initializer, part: tuple[int, int], whole: tuple[int, int]):
    """Returns an initializer that fills a part of a kernel as it would fill the whole.

    Args:
        initializer: a Keras initializer; only those that scale by the kernel's shape change.
        part: shape `(in, out)` of what is filled.
        whole: shape `(in, out)` of the kernel that it counts as a part of.
    """
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return initializer
    fans = [
        {"fan_in": size, "fan_out": units, "fan_avg": (size + units) / 2}[initializer.mode]
        for size, units in (part, whole)
    ]
    return keras.initializers.VarianceScaling(
        initializer.scale * fans[0] / fans[1],
        initializer.mode,
        initializer.distribution,
        initializer.seed,
    )
