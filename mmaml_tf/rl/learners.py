"""The recipes of policy learners: ProMP, its multimodal form, and a bank of one per mode."""

import keras

from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.learners.bank import Bank
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked
from mmaml_tf.rl.policy_learner import PolicyLearner


@keras.saving.register_keras_serializable("mmaml_tf")
class ProMP(PolicyLearner):
    """Proximal meta-policy search (Rothfuss et al. 2019): one initialisation for all tasks.

    It takes the arguments of `PolicyLearner`, but no encoder and no modulation; `MultimodalProMP`
    has them.
    """

    without = ("encoder", "modulation")


@keras.saving.register_keras_serializable("mmaml_tf")
class MultimodalProMP(PolicyLearner):
    """MMAML for policies: ProMP whose initialisation is modulated by what the first rollouts show.

    Args:
        network: see `PolicyLearner`.
        encoder: see `PolicyLearner`.
        modulation: see `PolicyLearner`; published is `FiLM(shift=False,
            kernel_initializer="glorot_uniform", bias_initializer="zeros")`.
        inner_loop: see `PolicyLearner`.
        **kwargs: see `PolicyLearner`.

    Raises:
        ValueError: without encoder or modulation, see also `PolicyLearner`.
    """

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer,
        modulation: Modulation | str,
        inner_loop: InnerLoop | None = None,
        **kwargs,
    ):
        if encoder is None or modulation is None:
            raise ValueError("MultimodalProMP needs an encoder and a modulation; or use ProMP.")
        super().__init__(
            network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **kwargs
        )


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiProMP(Bank, PolicyLearner):
    """One independent ProMP per mode, chosen by each task's true mode; see `Bank`."""
