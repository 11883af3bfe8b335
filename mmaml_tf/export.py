"""Export for inference: a SavedModel that adapts inside the graph.

The exported model needs TensorFlow alone. Its endpoints are traced without XLA and for any
number of tasks, support points and query points.
"""

import os
import shutil
from pathlib import Path

import tensorflow as tf

from mmaml_tf.checks import assert_index


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


def export_path(filepath, format: str, path, others: dict):
    """Returns the path among the arguments that Keras's `export` takes, and refuses others."""
    if format != "tf_saved_model":
        raise ValueError(
            f'format={format!r}: only format="tf_saved_model" can hold a model that adapts; leave '
            "the argument out."
        )
    if others:
        raise ValueError(
            f"export got {', '.join(others)}, but the signature of an exported learner is its own; "
            "leave them out."
        )
    if (filepath is None) == (path is None):
        raise ValueError("export takes one directory to write to, as export(filepath).")
    return path if filepath is None else filepath


def check_exportable(learner, path) -> Path:
    """Returns the path; raises ValueError unless the learner can be written there."""
    if not learner.built or not learner.compiled:
        raise ValueError("only a built and compiled learner can be exported; train or load it.")
    path = Path(os.fspath(path)).expanduser()
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
    link = learner.link

    def predict(support_x, support_y, query_x, *mode):
        outputs = learner.call((support_x, support_y, query_x), *mode)
        return outputs if link is None else link(outputs)

    return predict


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
    network = learner.network
    least = 1 if network.statistics == "moving" else network.least_points
    checks = [
        tf.debugging.assert_equal(
            tf.shape(support_y)[:2], [tasks, points], "support_x and support_y differ in T or K."
        ),
        tf.debugging.assert_greater_equal(
            points, least, f"a task needs at least {_number(least)}."
        ),
    ]
    if query_x is not None:
        message = "support_x and query_x differ in the number of tasks T."
        checks.append(tf.debugging.assert_equal(tf.shape(query_x)[0], tasks, message))
        if network.statistics == "query" and least > 1:
            message = (
                f"this model needs at least {least} query points, because batch normalisation "
                "makes nothing of one by itself."
            )
            checks.append(tf.debugging.assert_greater_equal(tf.shape(query_x)[1], least, message))
    checks += learner.assert_data(support_x, support_y, query_x)
    if mode is not None:
        # A one-hot choice of a mode that does not exist would be a network of zeros.
        message = f"mode must be the index of one of {learner.modes}."
        checks += assert_index(mode, len(learner.modes), message)
    return checks


def _number(least):
    return "one support point" if least == 1 else f"{least} support points"
