"""The inner loop: differentiable gradient steps on the weights of T tasks at once."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from mmaml_tf.arguments import flag, positive_number, whole_number


@keras.saving.register_keras_serializable("mmaml_tf")
class InnerLoop:
    """Plain gradient descent on per-task losses, differentiable to second order.

    The steps are unrolled in the graph and the tasks are an axis of every tensor, so that
    nothing loops over tasks (Algorithm 1 of the MMAML paper, lines 6-8; Finn et al. 2017, eq. 1).

    Args:
        steps: number of gradient steps, 0 or more.
        learning_rate: step size, greater than 0.
        clip: bound of the element-wise clipping of each gradient, or None. The clipping is part
            of the differentiated graph.
        first_order: treat the gradients as constants in the outer gradient (FOMAML).
        head_only: adapt the weights of the output layer alone (ANIL, Raghu et al. 2020); the
            network says which those are.

    Raises:
        ValueError: for negative steps, or a learning rate or clip that is not positive.
    """

    def __init__(
        self,
        steps: int = 5,
        learning_rate: float = 1e-3,
        clip: float | None = None,
        first_order: bool = False,
        head_only: bool = False,
    ):
        self.steps = check_steps(steps)
        self.learning_rate = positive_number("inner learning_rate", learning_rate)
        self.clip = None if clip is None else positive_number("inner clip", clip)
        self.first_order = flag("first_order", first_order)
        self.head_only = flag("head_only", head_only)

    def __call__(
        self,
        loss: Callable[[list, int], tf.Tensor],
        weights: Sequence[tf.Tensor],
        steps: int | None = None,
        adapted: Sequence[bool] | None = None,
    ) -> list[list[tf.Tensor]]:
        """Takes gradient steps on `weights` and returns the weights before and after each.

        Args:
            loss: maps (weights, step) to the per-task losses `[T]`. The loss of a task may
                depend on that task's weights only.
            weights: tensors `[T, ...]`, the initial weights of each task.
            steps: number of steps; by default the number given to the constructor.
            adapted: for each of `weights` whether it is adapted; by default all are. Those that
                are not may lack the task axis.

        Returns:
            `steps + 1` lists of tensors like `weights`; the first is `weights`, the last the
            adapted weights.

        Raises:
            ValueError: for a negative number of steps.
        """
        path = [list(weights)]
        for step in range(self.steps if steps is None else check_steps(steps)):
            path.append(self._step(loss, path[-1], step, adapted or [True] * len(path[-1])))
        return path

    def _step(self, loss, weights, step, adapted):
        changing = [w for w, changes in zip(weights, adapted, strict=True) if changes]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(changing)
            # The gradient of the sum over tasks holds each task's own gradient, because a
            # task's loss depends on its own weights alone.
            total = tf.reduce_sum(loss(weights, step))
        gradients = tape.gradient(total, changing, unconnected_gradients="zero")
        # A vectorised Keras model may give sparse gradients (IndexedSlices).
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        if self.first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
        if self.clip is not None:
            gradients = [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]
        gradients = iter(gradients)
        return [
            w - self.learning_rate * next(gradients) if changes else w
            for w, changes in zip(weights, adapted, strict=True)
        ]

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return {
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "clip": self.clip,
            "first_order": self.first_order,
            "head_only": self.head_only,
        }

    @classmethod
    def from_config(cls, config: dict) -> "InnerLoop":
        """Makes an inner loop from what `get_config` returned."""
        return cls(**config)


def check_steps(steps: int) -> int:
    """Returns `steps`; raises ValueError unless it is a whole number of at least 0."""
    return whole_number("inner steps", steps, least=0)
