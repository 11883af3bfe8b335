"""Export for inference: a SavedModel that adapts inside the graph.

The exported model needs TensorFlow alone. Its endpoints are traced without XLA and for any
number of tasks, support points and query points.
"""

import shutil
from pathlib import Path

import tensorflow as tf


def write_saved_model(learner, path) -> None:
    """Writes `learner` as a SavedModel that appears under its name only when complete.

    Load it with `tf.saved_model.load(path)`. The loaded object has, and as `signatures` serves:

    - `adapt_and_predict(support_x [T, K, ...], support_y [T, K, ...], query_x [T, Q, ...])`,
      which returns predictions `[T, Q, ...]` after the inner loop's steps. A `MultiMAML` takes a
      fourth argument, the modes `[T]` as int32.
    - `embed(support_x, support_y)`, which returns task embeddings `[T, E]`, if the learner has
      an encoder.

    Args:
        learner: a built and compiled `Learner`.
        path: directory to write to; a SavedModel that is there is replaced.

    Raises:
        ValueError: if the learner is not built and compiled, or `path` is something else than a
            SavedModel.
    """
    if not learner.built or not learner.compiled:
        raise ValueError("only a built and compiled learner can be exported; train or load it.")
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").exists():
        raise ValueError(f"{path} exists and is no SavedModel; choose another directory.")
    support_x, support_y = learner.support_shapes
    dtype = learner.compute_dtype
    specs = [
        tf.TensorSpec((None, None, *support_x[2:]), dtype, "support_x"),
        tf.TensorSpec((None, None, *support_y[2:]), learner.target_dtype, "support_y"),
        tf.TensorSpec((None, None, *support_x[2:]), dtype, "query_x"),
    ]
    mode = [tf.TensorSpec((None,), tf.int32, "mode")] if learner.needs_mode else []

    @tf.function(input_signature=specs + mode, autograph=False)
    def adapt_and_predict(support_x, support_y, query_x, *mode):
        for index in mode:
            # A one-hot choice of a mode that does not exist would be a network of zeros.
            message = f"mode must be the index of one of {learner.modes}."
            tf.debugging.assert_non_negative(index, message)
            tf.debugging.assert_less(index, len(learner.modes), message)
        return learner.call((support_x, support_y, query_x), *mode)

    module = tf.Module()
    # The graph reads these; the Keras objects that own them stay out of the file.
    module.learned = [v.value for v in learner.variables]
    module.adapt_and_predict = adapt_and_predict
    if learner.encoder is not None:
        module.embed = tf.function(learner.embed, input_signature=specs[:2], autograph=False)
    partial = path.with_name(f".partial-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    endpoints = {"adapt_and_predict", "embed"} & set(dir(module))
    tf.saved_model.save(module, str(partial), {name: getattr(module, name) for name in endpoints})
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(path)
