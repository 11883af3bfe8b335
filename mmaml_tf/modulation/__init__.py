"""Modulation: task embedding -> how each block of the task network is changed.

A `Modulation` has a generator head for each block, a linear layer from the task embedding to a few
tensors. A subclass gives their shapes (`shapes`) and says what they do (`change`). The answer is a
`BlockModulation`, which changes the block's kernel, its pre-activations, or both. Networks call its
methods and know nothing else of it.

A modulation of one's own is one class, and one line that gives it a name:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class Gain(mm.modulation.Modulation):
    ...     '''z·exp(e), a gain that keeps the signs.'''
    ...
    ...     def shapes(self, kernel):
    ...         return [kernel[-1:]]
    ...
    ...     def change(self, gains):
    ...         return mm.modulation.Affine(tf.exp(gains))
    >>> mm.modulation.MODULATIONS["gain"] = Gain
    >>> mm.modulation.get("gain")
    <Gain name=gain, built=False>
"""

from mmaml_tf.modulation.affine import FiLM, SigmoidGate, SoftmaxGate
from mmaml_tf.modulation.block import Affine, BlockModulation, KernelProduct
from mmaml_tf.modulation.kernel import KML
from mmaml_tf.modulation.modulation import Modulation

__all__ = [
    "KML",
    "MODULATIONS",
    "Affine",
    "BlockModulation",
    "FiLM",
    "KernelProduct",
    "Modulation",
    "SigmoidGate",
    "SoftmaxGate",
    "get",
]

#: the modulations that have a name
MODULATIONS = {"film": FiLM, "sigmoid": SigmoidGate, "softmax": SoftmaxGate, "kml": KML}


def get(modulation: str | Modulation) -> Modulation:
    """Returns a modulation for a name of `MODULATIONS` or a `Modulation`.

    Raises:
        ValueError: for an unknown name or another type.
    """
    if isinstance(modulation, Modulation):
        return modulation
    if isinstance(modulation, str) and modulation in MODULATIONS:
        return MODULATIONS[modulation]()
    raise ValueError(
        f"unknown modulation {modulation!r}; expected one of {sorted(MODULATIONS)} or a "
        "mmaml_tf.modulation.Modulation."
    )
