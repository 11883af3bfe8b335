"""The recipes of policy learners: ProMP, its multimodal form, and a bank of one per mode."""

import keras

from mmaml_tf.bank import Bank
from mmaml_tf.rl.policy_learner import PolicyLearner


@keras.saving.register_keras_serializable("mmaml_tf")
class ProMP(PolicyLearner):
    """Proximal meta-policy search (Rothfuss et al. 2019): one initialisation for all tasks.

    Args:
        network: see `PolicyLearner`.
        inner_loop: see `PolicyLearner`.
        **kwargs: see `PolicyLearner`.
    """

    def __init__(self, network, inner_loop, **kwargs):
        for part in ("encoder", "modulation"):
            if kwargs.pop(part, None) is not None:
                raise ValueError(f"ProMP has no {part}; use MultimodalProMP.")
        super().__init__(network, inner_loop, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultimodalProMP(PolicyLearner):
    """MMAML for policies: ProMP whose initialisation is modulated by what the first rollouts show.

    Args:
        network: see `PolicyLearner`.
        encoder: see `PolicyLearner`.
        modulation: see `PolicyLearner`; published is `FiLM(shift=False, xavier=True)`.
        inner_loop: see `PolicyLearner`.
        **kwargs: see `PolicyLearner`.
    """

    def __init__(self, network, encoder, modulation, inner_loop, **kwargs):
        if encoder is None or modulation is None:
            raise ValueError("MultimodalProMP needs an encoder and a modulation; or use ProMP.")
        super().__init__(network, inner_loop, encoder, modulation, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiProMP(Bank, PolicyLearner):
    """One independent ProMP per mode, chosen by each task's true mode; see `Bank`."""
