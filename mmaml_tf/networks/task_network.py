"""The contract of task networks: the forward pass takes its weights as an argument."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class ForwardPass(NamedTuple):
    """What one run of a task network gives.

    Attributes:
        outputs: `[T, N, ...]`.
        losses: `[T]`, what the network itself adds to each task's loss (regularisers, `add_loss`),
            or None.
        state: `[T, ...]` new values of `TaskNetwork.state`, one for each of its variables; empty
            outside training.
    """

    outputs: Any
    losses: Any = None
    state: Sequence = ()


class TaskNetwork(keras.Model):
    """A Keras model that can run on weights given by the caller.

    A subclass builds its layers, says which of its blocks can be modulated, and defines
    `functional_call`.
    """

    #: whether `functional_call` may be compiled by XLA
    supports_xla = True
    #: whether `functional_call` takes `support_x`, the support set of the tasks being predicted
    uses_support = False
    #: whose statistics batch normalisation uses: "query", "support" or "moving"
    statistics = "query"
    #: fewest points that batch normalisation tells apart: 2 where it sees one number a point
    least_points = 1
    #: variables that a pass in training changes besides the weights: moving averages, random seeds
    state: Sequence = ()

    @property
    def modulated_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Shape of the kernel of each block that can be modulated; known once built.

        Units or channels come last, `[..., in, out]`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say which of its blocks can be modulated; define the "
            "property `modulated_kernels`, the shapes of their kernels."
        )

    @property
    def head(self) -> Sequence:
        """The variables of the output layer, for `InnerLoop(head_only=True)`; known once built."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which of its weights are the output layer's; "
            "define the property `head`."
        )

    def functional_call(
        self, weights: Sequence, x: tf.Tensor, modulation: Sequence | None = None
    ) -> tf.Tensor:
        """Runs the network on other weights than its own.

        Args:
            weights: one tensor for each of `trainable_variables`, in that order; each of the
                variable's shape, or with a leading task axis `[T, ...]`.
            x: `[T, N, ...]` inputs of T tasks.
            modulation: for each block a `modulation.BlockModulation`, or None for one that stays
                as it is; None for no modulation.

        Returns:
            `[T, N, ...]` outputs.
        """
        raise NotImplementedError

    def head_inputs(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns what the output layer takes, `[T, N, F]`; `Learner(head="prototypes")` needs it.

        Args:
            weights: see `functional_call`.
            x: see `functional_call`.
            modulation: see `functional_call`.
            training: whether the pass is part of `fit`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what its output layer takes; define the method "
            "`head_inputs`."
        )

    def run(
        self,
        weights: Sequence,
        x: tf.Tensor,
        modulation: Sequence | None = None,
        support_x: tf.Tensor | None = None,
        training: bool = False,
    ) -> ForwardPass:
        """Runs the network as the learner does.

        Args:
            weights: see `functional_call`.
            x: see `functional_call`.
            modulation: see `functional_call`.
            support_x: `[T, K, ...]` the support set that x is a query to, or None where x is the
                support set itself.
            training: whether the pass is part of `fit`.

        Returns:
            A `ForwardPass`.
        """
        del training
        given = {"support_x": support_x} if self.uses_support and support_x is not None else {}
        return ForwardPass(self.functional_call(weights, x, modulation, **given))

    def inspect(self, point_shape: Sequence) -> None:
        """Looks at the network before a learner uses it, and refuses one that cannot be used.

        Args:
            point_shape: shape of one point of a task.

        Raises:
            ValueError: for regularised weights, where `run` gives no losses.
        """
        del point_shape
        regularised = [v.path for v in self.trainable_variables if v.regularizer is not None]
        if regularised and type(self).run is TaskNetwork.run:
            raise ValueError(
                f"the weights {regularised} of {self.name!r} have regularisers, but the network "
                "adds no losses to those of the tasks; leave them out, or define `run` so that "
                "its ForwardPass has the losses."
            )

    def check_modulation(self, modulation: Sequence, point_shape: Sequence) -> None:
        """Raises ValueError where modulating a block could make no difference.

        Args:
            modulation: that of two tasks, which differ in every block; see `functional_call`.
            point_shape: shape of one point of a task.
        """

    def by_variable(self, weights: Sequence) -> dict:
        """Returns the weights to run on by `id` of their variable, in the compute dtype.

        Args:
            weights: see `functional_call`. Frozen variables, which are not among them, keep their
                own values.
        """
        values = {id(v): tf.convert_to_tensor(v) for v in self.non_trainable_variables}
        values |= dict(zip(map(id, self.trainable_variables), weights, strict=True))
        return {key: tf.cast(value, self.compute_dtype) for key, value in values.items()}

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Runs the network on its own weights, `[N, ...]` or `[T, N, ...]`."""
        return self.functional_call([tf.convert_to_tensor(w) for w in self.trainable_variables], x)
