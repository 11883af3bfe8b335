"""The loss of a task: what a Keras loss means for the points of one task."""

import inspect

import keras
import numpy as np
import tensorflow as tf

# What makes probabilities of the logits that a loss takes, by the name of its function.
_LINKS = {
    "sparse_categorical_crossentropy": tf.nn.softmax,
    "categorical_crossentropy": tf.nn.softmax,
    "categorical_focal_crossentropy": tf.nn.softmax,
    "binary_crossentropy": tf.sigmoid,
    "binary_focal_crossentropy": tf.sigmoid,
}
_REDUCTIONS = {
    "sum_over_batch_size": tf.reduce_mean,
    "mean": tf.reduce_mean,
    "mean_with_sample_weight": tf.reduce_mean,
    "sum": tf.reduce_sum,
}
_ADVICE = (
    "a loss keeps the axes of tasks and points, as tf.square(y - p) does and "
    "tf.reduce_mean(tf.square(y - p)) does not"
)


class TaskLoss:
    """A Keras loss, reduced over the points of each task by its own `reduction`.

    Args:
        loss: a `keras.losses.Loss`, the name of one, or a function of (targets, outputs) that
            returns `[T, N, ...]`, or `[T]`.

    Raises:
        ValueError: for no loss, several, an unknown name, or a reduction that leaves no loss of a
            task.
    """

    def __init__(self, loss):
        if loss is None or isinstance(loss, (list, tuple, dict)):
            raise ValueError(
                f"loss={loss!r}: a learner needs one loss, for the inner and the outer loop; give "
                'compile(loss="mse") for example.'
            )
        if type(loss).__module__.startswith("tf_keras"):
            raise ValueError(f"loss={loss!r} is of tf_keras; give one of keras.losses.")
        self.given = keras.losses.get(loss)
        is_object = isinstance(self.given, keras.losses.Loss)
        self._values = self.given.call if is_object else self.given
        reduction = self.given.reduction if is_object else "mean"
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"the loss has reduction={reduction!r}; expected one of {tuple(_REDUCTIONS)}, by "
                "which it is reduced over the points of a task."
            )
        self._reduce = _REDUCTIONS[reduction]
        function = getattr(self.given, "fn", self.given)
        self._link = _LINKS.get(getattr(function, "__name__", None))
        self._takes_logits = _takes_logits(self.given)

    def __call__(self, targets, outputs):
        """Returns the loss of each task, `[T]`.

        Args:
            targets: `[T, N, ...]`.
            outputs: `[T, N, ...]`.
        """
        losses = self._values(targets, outputs)
        if losses.shape.rank == 0:
            raise ValueError(f"the loss {self} returns one number for all tasks; {_ADVICE}.")
        return self._reduce(losses, axis=list(range(1, losses.shape.rank)))

    def check(self, target_shape, target_dtype, output_shape, output_dtype) -> None:
        """Raises ValueError unless the loss keeps tasks and points apart.

        Args:
            target_shape: shape of one point's target.
            target_dtype: its type.
            output_shape: shape of one point's output.
            output_dtype: its type.
        """
        leading = (2, 3)
        rng = np.random.default_rng(0)
        targets = rng.random((*leading, *target_shape))
        if tf.as_dtype(target_dtype).is_integer:
            targets = rng.integers(output_shape[-1], size=targets.shape)
        targets = tf.constant(targets, target_dtype)
        outputs = tf.constant(rng.random((*leading, *output_shape)), output_dtype)

        # As a learner runs it: in a graph.
        def values(*given):
            return tf.convert_to_tensor(self._values(*given))

        values = tf.function(values, autograph=False)
        try:
            together, alone = values(targets, outputs), values(targets[:1], outputs[:1])
        except Exception as error:  # of whatever kind the loss raises
            raise ValueError(
                f"the loss {self} cannot be computed from targets [T, N{_axes(target_shape)}] of "
                f"type {target_dtype} and outputs [T, N{_axes(output_shape)}]: "
                f"{_last_line(error)} Class labels need SparseCategoricalCrossentropy, one-hot "
                "vectors CategoricalCrossentropy."
            ) from error
        found = tuple(together.shape)
        if found[:2] != leading and found != leading[:1]:
            raise ValueError(
                f"the loss {self} returns values of shape {found} for {leading[0]} tasks of "
                f"{leading[1]} points; {_ADVICE}."
            )
        if not np.allclose(together[:1], alone, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise ValueError(
                f"the loss {self} gives a task other values when another task is beside it; "
                f"{_ADVICE}."
            )

    def check_outputs(self, outputs) -> None:
        """Raises ValueError where the loss takes probabilities and gets logits, or the reverse.

        Args:
            outputs: `[T, N, C]` some outputs of the network.
        """
        if self._link is None:
            return
        if self._takes_logits and self.are_probabilities(outputs):
            raise ValueError(
                f"the loss {self} takes logits, and the network gives probabilities; give the "
                "loss from_logits=False, or the network no activation at its end."
            )
        if not self._takes_logits and not self.are_probabilities(outputs):
            raise ValueError(
                f"the loss {self} takes probabilities, and the network gives logits; give the "
                f"loss from_logits=True, as keras.losses.{_class_name(self.given)}"
                "(from_logits=True)."
            )

    def are_probabilities(self, outputs) -> bool:
        """Tells whether outputs are probabilities, of classes or of each by itself."""
        outputs = tf.cast(outputs, tf.float32)
        inside = bool(tf.reduce_all((outputs >= 0) & (outputs <= 1)))
        if self._link is tf.sigmoid:
            return inside
        sums = tf.reduce_sum(outputs, axis=-1)
        return inside and bool(tf.reduce_all(tf.abs(sums - 1) < 1e-2))

    def link(self, labels: bool):
        """Returns what makes probabilities of the network's outputs, or None.

        Args:
            labels: whether the targets are integer class labels. A loss of one's own on them is
                taken to be on logits, unless it has a `from_logits` that says otherwise.
        """
        if not self._takes_logits:
            return None
        return self._link or (tf.nn.softmax if labels else None)

    def __str__(self):
        return getattr(self.given, "name", None) or getattr(self.given, "__name__", "given")


def _takes_logits(loss):
    """Whether a loss takes logits, as one does that is silent on it."""
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("from_logits", True)
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return parameter is None or parameter.default


def _axes(shape):
    return "".join(f", {size}" for size in shape)


def _last_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _class_name(loss):
    function = getattr(loss, "fn", loss)
    return "".join(part.title() for part in function.__name__.split("_"))
