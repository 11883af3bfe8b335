"""Keras metrics of one task at a time."""

import numpy as np
import tensorflow as tf

from mmaml_tf.keras_internals import compiled_metrics


class TaskMetrics:
    """The metrics that a learner was compiled with, measured on each task alone.

    A metric is reset before each task, and has its former state again afterwards.

    Args:
        learner: a compiled learner.
    """

    def __init__(self, learner):
        self._compiled = compiled_metrics(learner)
        self._eager = learner.run_eagerly
        self._graphs = {}

    def __call__(self, targets, path, taken) -> dict[str, np.ndarray]:
        """Measures predictions after several numbers of inner steps.

        Args:
            targets: `[T, Q, ...]`.
            path: predictions `[C, T, Q, ...]`.
            taken: names of what is measured already.

        Returns:
            `[C, T]` values by the metrics' names.

        Raises:
            ValueError: for a metric that does not give one number for a task alone, or has the
                name of another.
        """
        if self._compiled is None:
            return {}
        if not self._compiled.built:
            self._compiled.build(targets[:1], path[0, :1])
        found = {}
        many = tf.repeat(targets[None], len(path), axis=0)
        for metric in self._compiled.metrics:
            if metric.name == "accuracy" and "accuracy" in taken and _counts_hits(metric):
                continue
            if metric.name in found or metric.name in taken:
                raise ValueError(
                    f"two measures are named {metric.name!r}; give the metric another name."
                )
            found[metric.name] = self._measured(metric, many, path)
        return found

    def _measured(self, metric, targets, path):
        flat = [tf.reshape(a, [-1, *a.shape[2:]]) for a in (targets, path)]
        before = [variable.numpy() for variable in metric.variables]
        try:
            first = _of_one(metric, flat[0][0], flat[1][0])
            if first.shape.rank != 0:
                raise ValueError(f"it has shape {tuple(first.shape)}; expected one number")
            if self._eager:
                values = [_of_one(metric, *task) for task in zip(*flat, strict=True)]
            else:
                values = self._graph(metric)(*flat)
        except Exception as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else repr(error)
            raise ValueError(
                f"the metric {metric.name!r} cannot be measured task by task: {reason}. Compile "
                "without it to evaluate."
            ) from error
        finally:
            for variable, value in zip(metric.variables, before, strict=False):
                variable.assign(value)
        return np.reshape(np.array(values), path.shape[:2])

    def _graph(self, metric):
        if id(metric) not in self._graphs:

            @tf.function(autograph=False, reduce_retracing=True)
            def measure(targets, predictions):
                return tf.map_fn(
                    lambda task: tf.cast(_of_one(metric, *task), tf.float32),
                    (targets, predictions),
                    fn_output_signature=tf.float32,
                    parallel_iterations=1,  # the metric has one state
                )

            self._graphs[id(metric)] = measure
        return self._graphs[id(metric)]


def _of_one(metric, targets, predictions):
    metric.reset_state()
    metric.update_state(targets[None], predictions[None])
    return tf.convert_to_tensor(metric.result())


def _counts_hits(metric):
    """Returns whether a metric is Keras's own accuracy, which is measured already."""
    return type(metric).__module__.startswith("keras.") and "Accuracy" in type(metric).__name__
