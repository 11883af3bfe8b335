"""What a task network needs to know of the layers of a Keras model."""

import keras

from mmaml_tf.division import on_gpu
from mmaml_tf.keras_internals import flat_layers

_AFFINE_LAYERS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_SCALED_LAYERS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def refuse_layers(model):
    """Raises ValueError for layers that cannot run on other weights than their own."""
    for layer in flat_layers(model):
        if getattr(layer, "stateful", False):
            why = "keeps a state from one batch to the next, which tasks do not have"
        elif getattr(layer, "groups", 1) > 1 and is_affine(layer) and not on_gpu():
            why = "is a grouped convolution, whose gradient TensorFlow lacks on a CPU"
        elif getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            why = "is quantised or has LoRA weights, by which it computes another way"
        else:
            continue
        raise ValueError(
            f"layer {layer.name!r} of the Keras model {model.name!r} {why}; give a model without."
        )


def is_affine(layer) -> bool:
    """Tells whether a layer's outputs are an affine map by a kernel and a bias."""
    return isinstance(layer, _AFFINE_LAYERS)


def kernel(layer):
    """Returns the weights that scale a layer's outputs, or None."""
    if is_affine(layer):
        return layer.kernel
    if (
        isinstance(layer, _SCALED_LAYERS)
        and layer.gamma is not None
        and len(layer.gamma.shape) == 1
    ):
        return layer.gamma
    return None


def bias(layer):
    """Returns the weights that shift what `kernel` scales, or None."""
    return layer.bias if is_affine(layer) else layer.beta


def weighted_layers(model):
    """Returns the layers that have trainable weights of their own and no layers inside."""
    return [
        layer
        for layer in flat_layers(model, include_self=False)
        if layer.trainable_variables and not flat_layers(layer, include_self=False)
    ]
