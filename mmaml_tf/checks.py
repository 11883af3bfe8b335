"""Checks of the values of episodes, which work eagerly, in graphs and in exported models alike."""

import contextlib
import re

import numpy as np
import tensorflow as tf

# What `assert_values` says, as TensorFlow hands it on.
_SENTENCE = re.compile(
    r"(?:support|query)_[xy] of task \d+, point \d+ is .*?; expected [^.]*\.[^\]'\n]*"
)

_REFUSALS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.UnimplementedError,
)


# What may be wrong with the points of tasks that make no array.
_POINTS = (
    " All tasks of a batch need as many points as each other; adapt to tasks of other sizes one at "
    "a time, or draw batches from them with mmaml_tf.tasks.ArrayTasks."
)


def as_tensor(name: str, value, advice: str = _POINTS) -> tf.Tensor:
    """Returns an array, a pandas frame or nested lists of numbers as a tensor.

    Args:
        name: the argument's name, for messages.
        value: what the user gave.
        advice: the end of the message.

    Raises:
        ValueError: for what is no array of numbers, such as tasks with different numbers of points.
    """
    if tf.is_tensor(value) and not isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        return value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = None
    if array is None or array.dtype.kind not in "biuf":
        found = type(value).__name__ if array is None else f"values of type {array.dtype}"
        raise ValueError(f"{name} is no array of numbers (found {found}).{advice}")
    return tf.convert_to_tensor(array)


def assert_values(parts: dict, classes: int | None = None, origin=None) -> tf.Operation:
    """Returns an assertion that values are finite, and class labels within their range.

    Args:
        parts: values `[T, N, ...]` by their name in `Episodes`; those that are None are left out.
        classes: number of classes, where targets are labels.
        origin: `[2]` (seed, step) of the batch, or None.
    """
    good, expected = {}, {}
    for name, values in parts.items():
        if values is None:
            continue
        if classes is not None and name.endswith("_y"):
            good[name] = (values >= 0) & (values < classes)
            expected[name] = f"class labels from 0 to {classes - 1}, one for each output"
        elif values.dtype.is_floating:
            good[name] = tf.math.is_finite(values)
            expected[name] = "finite numbers"
    if not good:
        return tf.no_op()
    passed = tf.stack([tf.reduce_all(flags) for flags in good.values()])

    def fail():
        # Assertions of their own for each part, without the branches of `tf.debugging.Assert`.
        for index, (name, flags) in enumerate(good.items()):
            text = _sentence(name, parts[name], flags, expected[name], origin)
            if tf.executing_eagerly() and not passed[index]:
                raise ValueError(text.numpy().decode())
            if not tf.executing_eagerly():
                tf.raw_ops.Assert(condition=passed[index], data=[text], summarize=1)
        return tf.no_op()

    return tf.cond(tf.reduce_all(passed), tf.no_op, fail)


def _sentence(name, values, good, expected, origin):
    """Returns what is wrong with the first value that is not good, a string tensor."""
    first = tf.argmin(tf.cast(tf.reshape(good, [-1]), tf.int8))
    tasks, points = (tf.cast(tf.shape(values)[axis], tf.int64) for axis in (0, 1))
    per_task = tf.size(values, tf.int64) // tasks
    arguments = [first // per_task, first % per_task // (per_task // points)]
    arguments.append(tf.reshape(values, [-1])[first])
    text = f"{name} of task {{}}, point {{}} is {{}}; expected {expected}."
    if origin is not None:
        text += " The batch is of seed {}, step {}."
        arguments += tf.unstack(origin[:2], 2)
    return tf.strings.format(text, arguments)


def assert_index(index, size: int, message: str) -> list:
    """Returns assertions for a graph that all indices are at least 0 and less than a size."""
    return [
        tf.debugging.assert_non_negative(index, message),
        tf.debugging.assert_less(index, size, message),
    ]


@contextlib.contextmanager
def as_value_errors():
    """Raises as a ValueError what TensorFlow has against data while a graph runs."""
    try:
        yield
    except _REFUSALS as error:
        found = _SENTENCE.search(error.message)
        if found:
            raise ValueError(found[0].strip()) from None
        if "XLA" in error.message or "jit_compile" in error.message:
            raise ValueError(
                "XLA cannot compile this learner; give compile(jit_compile=False). It says: "
                f"{error.message.splitlines()[0]}"
            ) from error
        before_node = error.message.partition("[[{{node")[0].strip().splitlines()
        found = before_node[-1].strip() if before_node else error.message
        asserted = re.search(r"assertion failed: \[(.*?)\]", found)
        if asserted:
            raise ValueError(asserted[1].replace("\\'", "'")) from None
        raise ValueError(
            f"these data do not fit the learner, or a layer cannot run here: {found}"
        ) from error
    except NotImplementedError as error:
        raise ValueError(
            "a loss, a metric or a layer cannot be part of a graph; use keras.ops or tf in place "
            f"of NumPy. TensorFlow says: {str(error).splitlines()[0]}"
        ) from error
