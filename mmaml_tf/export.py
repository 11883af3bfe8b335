"""Export for inference: a SavedModel that adapts inside the graph.

The exported model needs TensorFlow alone. Its endpoints are traced without XLA and for any
number of tasks, support points and query points.
"""

import inspect
import shutil
from pathlib import Path

import keras
import tensorflow as tf


def write_saved_model(learner, path) -> None:
    """Writes `learner` as a SavedModel that appears under its name only when complete.

    Load it with `tf.saved_model.load(path)`. The loaded object has, and as `signatures` serves:

    - `adapt_and_predict(support_x [T, K, ...], support_y [T, K, ...], query_x [T, Q, ...])`,
      which returns predictions `[T, Q, ...]` after the inner loop's steps: of a classifier, whose
      support_y are int32 labels, the probabilities of the classes `[T, Q, N]`. A `MultiMAML` takes
      a fourth argument, the modes `[T]` as int32.
    - `embed(support_x, support_y)`, which returns task embeddings `[T, E]`, if the learner has
      an encoder.

    Args:
        learner: a built and compiled `Learner`.
        path: directory to write to; a SavedModel that is there is replaced.

    Raises:
        ValueError: if the learner is not built and compiled, or `path` is something else than a
            SavedModel.
    """
    path = check_exportable(learner, path)
    specs = _specs(learner)
    predict = _predictions(learner)
    if len(specs[0].shape) > 3:  # images
        predict = _one_task_at_a_time(predict)

    @tf.function(input_signature=specs, autograph=False)
    def adapt_and_predict(support_x, support_y, query_x, *mode):
        with tf.control_dependencies(_checks(learner, support_x, support_y, query_x, *mode)):
            return predict(*map(tf.identity, (support_x, support_y, query_x, *mode)))

    module = tf.Module()
    # The graph reads these; the Keras objects that own them stay out of the file.
    module.learned = [v.value for v in learner.variables]
    module.adapt_and_predict = adapt_and_predict
    if learner.encoder is not None:

        @tf.function(input_signature=specs[:2], autograph=False)
        def embed(support_x, support_y):
            with tf.control_dependencies(_checks(learner, support_x, support_y)):
                return learner.embed(tf.identity(support_x), tf.identity(support_y))

        module.embed = embed
    endpoints = {"adapt_and_predict", "embed"} & set(dir(module))
    save_module(module, path, {name: getattr(module, name) for name in endpoints})


def check_exportable(learner, path) -> Path:
    """Returns the path; raises ValueError unless the learner can be written there."""
    if not learner.built or not learner.compiled:
        raise ValueError("only a built and compiled learner can be exported; train or load it.")
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").exists():
        raise ValueError(f"{path} exists and is no SavedModel; choose another directory.")
    return path


def save_module(module: tf.Module, path: Path, signatures=None) -> None:
    """Writes a module as a SavedModel that appears under its name only when complete.

    Args:
        module: what is written.
        path: where to.
        signatures: its functions that a server is to offer, by name.
    """
    partial = path.with_name(f".partial-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    tf.saved_model.save(module, str(partial), signatures)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A model that is replaced is put aside: nothing is deleted before its successor is there.
    replaced = path.with_name(f".replaced-{path.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _specs(learner):
    """Returns what `adapt_and_predict` takes."""
    support_x, support_y = learner.support_shapes
    dtype = learner.compute_dtype
    specs = [
        tf.TensorSpec((None, None, *support_x[2:]), dtype, "support_x"),
        tf.TensorSpec((None, None, *support_y[2:]), learner.target_dtype, "support_y"),
        tf.TensorSpec((None, None, *support_x[2:]), dtype, "query_x"),
    ]
    return specs + ([tf.TensorSpec((None,), tf.int32, "mode")] if learner.needs_mode else [])


def _predictions(learner):
    """Returns a function from the inputs to predictions, or probabilities of classes."""
    probabilities = learner.predicts_classes and _takes_logits(learner.loss)

    def predict(support_x, support_y, query_x, *mode):
        outputs = learner.call((support_x, support_y, query_x), *mode)
        return tf.nn.softmax(outputs) if probabilities else outputs

    return predict


def _takes_logits(loss):
    """Whether a loss takes logits, as one does that is silent on it."""
    loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits", True)
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return parameter is None or parameter.default


def _one_task_at_a_time(predict):
    """Returns `predict` run on each task alone, in a loop inside the graph.

    A convolution with one kernel per task is then an ordinary one. For vectors, whose layers are
    products of batches of matrices, this would be many times slower.
    """

    def one_task(inputs):
        return predict(*(tensor[None] for tensor in inputs))[0]

    def all_tasks(*inputs):
        return tf.map_fn(one_task, inputs, fn_output_signature=inputs[0].dtype)

    return all_tasks


def _checks(learner, support_x, support_y, query_x=None, mode=None):
    """Returns assertions on inputs from which a prediction would otherwise silently be wrong."""
    tasks, points = (tf.shape(support_x)[i] for i in (0, 1))
    checks = [
        tf.debugging.assert_equal(
            tf.shape(support_y)[:2], [tasks, points], "support_x and support_y differ in T or K."
        ),
        tf.debugging.assert_positive(points, "a task needs at least one support point."),
    ]
    if query_x is not None:
        message = "support_x and query_x differ in the number of tasks T."
        checks.append(tf.debugging.assert_equal(tf.shape(query_x)[0], tasks, message))
    if learner.predicts_classes:
        classes = _classes(learner)
        message = f"support_y holds labels that this model has no class for: 0 to {classes - 1}."
        checks += assert_index(support_y, classes, message)
    if mode is not None:
        # A one-hot choice of a mode that does not exist would be a network of zeros.
        message = f"mode must be the index of one of {learner.modes}."
        checks += assert_index(mode, len(learner.modes), message)
    return checks


def assert_index(index, size: int, message: str) -> list:
    """Returns assertions for a graph that all indices are at least 0 and less than a size."""
    return [
        tf.debugging.assert_non_negative(index, message),
        tf.debugging.assert_less(index, size, message),
    ]


def _classes(learner):
    """Returns the number of classes N of a classifier's outputs."""
    with tf.init_scope():
        zeros = [tf.zeros([1, 1, *spec.shape[2:]], spec.dtype) for spec in _specs(learner)[:3]]
        mode = [tf.zeros([1], tf.int32)] if learner.needs_mode else []
        return learner.call(tuple(zeros), *mode, steps=0).shape[-1]
