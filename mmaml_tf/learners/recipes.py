"""The recipes: which parts make which method."""

import keras

from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.learners.bank import Bank
from mmaml_tf.learners.learner import Learner
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked


@keras.saving.register_keras_serializable("mmaml_tf")
class MAML(Learner):
    """Model-agnostic meta-learning (Finn et al. 2017): one initialisation for all tasks.

    It takes the arguments of `Learner`, but no encoder and no modulation; `MMAML` has them.
    """

    without = ("encoder", "modulation")


@keras.saving.register_keras_serializable("mmaml_tf")
class MMAML(Learner):
    """Multimodal MAML: modulates the initialisation by what the support set shows.

    Args:
        network: see `Learner`.
        encoder: see `Learner`.
        modulation: see `Learner`.
        inner_loop: see `Learner`.
        **kwargs: see `Learner`.

    Raises:
        ValueError: without encoder or modulation, see also `Learner`.
    """

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer,
        modulation: Modulation | str = "film",
        inner_loop: InnerLoop | None = None,
        **kwargs,
    ):
        if encoder is None or modulation is None:
            raise ValueError(
                f"{type(self).__name__} needs an encoder and a modulation; use MAML without them."
            )
        super().__init__(
            network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **kwargs
        )


@keras.saving.register_keras_serializable("mmaml_tf")
class LSTMLearner(MMAML):
    """Encoder and modulated network trained to predict without any inner step.

    It takes the arguments of `MMAML`, but no inner loop.
    """

    without = ("inner_loop",)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiMAML(Bank, Learner):
    """One independent MAML per mode, chosen by each task's true mode; see `Bank`."""
