"""The recipes: which parts make which method."""

import keras

from mmaml_tf.bank import Bank
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.learners.learner import Learner


@keras.saving.register_keras_serializable("mmaml_tf")
class MAML(Learner):
    """Model-agnostic meta-learning (Finn et al. 2017): one initialisation for all tasks.

    Args:
        network: see `Learner`.
        inner_loop: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, inner_loop, **kwargs):
        for part in ("encoder", "modulation"):
            if kwargs.pop(part, None) is not None:
                raise ValueError(f"MAML has no {part}; use MMAML.")
        super().__init__(network, inner_loop, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MMAML(Learner):
    """Multimodal MAML: modulates the initialisation by what the support set shows.

    Args:
        network: see `Learner`.
        encoder: see `Learner`.
        modulation: see `Learner`.
        inner_loop: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, encoder, modulation="film", inner_loop=None, **kwargs):
        if encoder is None or modulation is None:
            raise ValueError("MMAML needs an encoder and a modulation; use MAML without them.")
        inner_loop = InnerLoop() if inner_loop is None else inner_loop
        super().__init__(network, inner_loop, encoder, modulation, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class LSTMLearner(MMAML):
    """Encoder and modulated network trained to predict without any inner step.

    Args:
        network: see `Learner`.
        encoder: see `Learner`.
        modulation: see `Learner`.
        **kwargs: see `Learner`.
    """

    def __init__(self, network, encoder, modulation="film", **kwargs):
        kwargs.pop("inner_loop", None)
        super().__init__(network, encoder, modulation, InnerLoop(steps=0), **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiMAML(Bank, Learner):
    """One independent MAML per mode, chosen by each task's true mode; see `Bank`."""
