"""Multimodal model-agnostic meta-learning for Keras and TensorFlow."""

import os
import sys

# The command line imports what it needs itself, so that its help comes without TensorFlow.
_as_module = sys.argv[:1] == ["-m"] and "-m mmaml_tf" in " ".join(sys.orig_argv)
_as_script = os.path.basename(sys.argv[0]) in ("mmaml", "mmaml.exe") if sys.argv else False
if not (_as_module or _as_script):
    # Keras may not find another backend's packages, so its own variable is looked at first.
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "tensorflow":
        import keras

        backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"mmaml_tf needs Keras on TensorFlow, and its backend is {backend!r}; set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )

    from mmaml_tf import encoders, modulation, networks, tasks, update_rules
    from mmaml_tf.episodes import Episodes
    from mmaml_tf.evaluation import evaluate
    from mmaml_tf.inner_loop import InnerLoop
    from mmaml_tf.learners import MAML, MMAML, Learner, LSTMLearner, MultiMAML
    from mmaml_tf.learners.protonet import ProtoNet
    from mmaml_tf.nonfinite import NonFiniteError

__version__ = "0.1.0"
__all__ = [
    "MAML",
    "MMAML",
    "Episodes",
    "InnerLoop",
    "LSTMLearner",
    "Learner",
    "MultiMAML",
    "NonFiniteError",
    "ProtoNet",
    "encoders",
    "evaluate",
    "modulation",
    "networks",
    "tasks",
    "update_rules",
]
