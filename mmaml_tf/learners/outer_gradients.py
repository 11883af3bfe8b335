"""The outer gradients of a batch of tasks, as a function of the values of all variables.

It knows nothing of what tasks are made of.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division, layers
from mmaml_tf.learners.task_model import TaskModel


class OuterGradients(TaskModel):
    """The part of a meta-learner that differentiates its outer loss.

    A subclass has a task `network`, an `encoder` and a `modulation` (or None), and says what the
    data of a task are: `modulate_batch` and `outer_losses`.
    """

    #: whether XLA compiles the parts of a step; `compile` says
    xla = False

    def modulate_batch(self, batch: Sequence) -> Any:
        """Returns the modulation of each block for a batch in training, see `outer_losses`."""
        raise NotImplementedError

    def phases(self) -> Sequence:
        """Returns pairs of an outer step, the first 0, and the phase of training it begins.

        What a phase is the subclass knows, in `outer_losses`. Each has graphs of its own.
        """
        return [(0, None)]

    def outer_losses(self, batch: Sequence, affine: Sequence | None, phase: Any) -> tuple:
        """Adapts and measures, inside the outer gradient tape.

        Args:
            batch: the tensors of t tasks, in the order given to `outer_step`.
            affine: the modulation of each block for them, see `modulate_batch`.
            phase: that of the present outer step, see `phases`; None for the last one.

        Returns:
            The outer loss of each task `[t]`, a tensor `[t, ...]` of what the metrics need, and
            the new values `[t, ...]` of each of the network's `state`.
        """
        raise NotImplementedError

    def _modulating_variables(self):
        if self.encoder is None:
            return []
        return self.encoder.trainable_variables + self.modulation.trainable_variables

    def _network_variables(self):
        of_modulation = {id(v) for v in self._modulating_variables()}
        return [v for v in self.trainable_variables if id(v) not in of_modulation]

    @property
    def state(self) -> list:
        """The variables that training changes besides the weights: averages, random seeds."""
        return [*self.network.state, *self.encoder_state]

    def _gradients(self, arrays):
        """Returns what `_shard_gradients` does, of tasks that are divided into shards.

        Args:
            arrays: tensors `[t, ...]` or None, the last of which are the tasks' weights.
        """
        shards, values = self._divide(arrays[-1].shape[0]).split(arrays), self._values()

        def gradients(phase):
            return [self._shard_gradients(s, values, groups, phase) for s, groups in shards]

        by_task, sums = zip(*self._in_phase(gradients), strict=True)
        return (
            tuple(tf.concat(of_shards, axis=0) for of_shards in zip(*by_task, strict=True)),
            [tf.add_n(of_shards) for of_shards in zip(*sums, strict=True)],
        )

    def _in_phase(self, function):
        """Returns what a function gives for the phase of the present outer step."""
        starts, phases = zip(*self.phases(), strict=True)
        if len(phases) == 1:
            return function(phases[0])
        begun = [self.optimizer.iterations >= start for start in starts[1:]]
        index = tf.reduce_sum(tf.cast(tf.stack(begun), tf.int32))
        return tf.switch_case(index, [functools.partial(function, phase) for phase in phases])

    def _step_variables(self):
        """Returns the variables that the gradients may depend on."""
        others = {id(v) for v in (*self.guard.variables, *self.metrics_variables)}
        own = [v for v in self.variables if id(v) not in others]
        # The step, and the scale of the loss.
        return own + [v for v in self.optimizer.variables if not v.shape.rank]

    def _values(self):
        """Returns the values of `_step_variables`, which graphs take as arguments."""
        return [tf.convert_to_tensor(v) for v in self._step_variables()]

    def _divide(self, tasks):
        if not self.xla and self._division == {"shards": "auto", "tasks_at_once": "auto"}:
            return division.Division()
        weights = self.network.trainable_variables
        size = sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in weights)
        given = self._division
        if self.encoder_state:
            # Averages over tasks, and what is drawn for them, are those of the whole batch.
            given = given | {"shards": 1}
        if self.replicas.here > 1 and given["shards"] == "auto":
            # Replicas run at the same time already.
            given = given | {"shards": 1}
        return division.Division.of(tasks, size, **given)

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        self._shard_gradients = self._compiled(self._losses_and_gradients)

    def _compiled(self, function, xla=None):
        """Returns a function as a graph, by default by XLA where the learner uses it."""
        if self.run_eagerly:
            return function
        xla = self.xla if xla is None else xla
        return tf.function(function, autograph=False, jit_compile=xla)

    def _losses_and_gradients(self, arrays, values, groups, phase=None):
        """Returns losses and outputs `[t, ...]`, and sums over tasks.

        The sums are the gradients of Σ weights·losses by `_network_variables` and
        `_modulating_variables`, scaled as the optimizer wants its loss to be, and changes of
        state: the network's, summed over tasks, and the encoder's.

        Args:
            arrays: see `_gradients`.
            values: see `_values`. XLA runs what reads variables itself on the first device alone.
            groups: parts of the tasks that follow one another.
            phase: see `phases`.
        """
        given = list(zip(self._step_variables(), values, strict=True))
        with layers.compiled_by_xla(self.xla), keras.StatelessScope(given):
            return self._divided_gradients(arrays, given, groups, phase)

    def _divided_gradients(self, arrays, given, groups, phase):
        # The encoder sees all tasks at once, the inner loop one group after the other; the chain
        # rule joins them where the modulation enters.
        *batch, weights = arrays
        count = len(arrays)
        modulators = [tf.convert_to_tensor(v) for v in self._modulating_variables()]
        variables = self._network_variables()
        state = [tf.convert_to_tensor(v) for v in self.network.state]
        with tf.GradientTape(watch_accessed_variables=False) as modulating:
            modulating.watch(modulators)
            affine, own_loss, encoder_state = self._modulate_in_training(batch, modulators, given)
        # Blocks without modulation, and modulations that do not shift, have None.
        tensors = [t for t in tf.nest.flatten(affine) if t is not None]

        def group_gradients(*arrays):
            (*batch, weights), tensors = arrays[:count], arrays[count:]
            # Of this group's own graph, which is the body of a loop where there are several.
            adapted = [tf.identity(tf.convert_to_tensor(v)) for v in variables]
            with (
                keras.StatelessScope([*given, *zip(variables, adapted, strict=True)]),
                tf.GradientTape(watch_accessed_variables=False) as outer,
            ):
                outer.watch([adapted, tensors])
                remaining = iter(tensors)
                own = tf.nest.map_structure(
                    lambda t: None if t is None else next(remaining), affine
                )
                losses, outputs, new_state = self.outer_losses(batch, own, phase)
                loss = self.optimizer.scale_loss(tf.reduce_sum(weights * losses))
            gradients = outer.gradient(loss, [*adapted, *tensors], unconnected_gradients="zero")
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            by_task = losses, outputs, *gradients[len(adapted) :]
            changes = [tf.reduce_sum(n - v, axis=0) for n, v in zip(new_state, state, strict=True)]
            return by_task, [*gradients[: len(adapted)], *changes]

        (losses, outputs, *of_tensors), sums = division.map_groups(
            group_gradients,
            [*arrays, *tensors],
            groups,
            dtypes=(
                (weights.dtype, weights.dtype, *(t.dtype for t in tensors)),
                [v.dtype for v in (*variables, *state)],
            ),
        )
        gradients, changes = sums[: len(variables)], sums[len(variables) :]
        if modulators:
            targets, received = list(tensors), list(of_tensors)
            if own_loss is not None:
                losses += own_loss
                share = self.optimizer.scale_loss(tf.reduce_sum(weights))
                targets, received = [*targets, own_loss], [*received, share]
            of_modulators = modulating.gradient(
                targets, modulators, received, unconnected_gradients="zero"
            )
            gradients += [tf.convert_to_tensor(g) for g in of_modulators]
        changes += [
            new - tf.convert_to_tensor(old)
            for new, old in zip(encoder_state, self.encoder_state, strict=True)
        ]
        return (losses, outputs), [*gradients, *changes]

    def _modulate_in_training(self, batch, modulators, given):
        """Returns the modulation, the loss of its own that it adds, and the encoder's new state.

        Args:
            batch: see `outer_losses`.
            modulators: the values of `_modulating_variables` to run on.
            given: all variables with their values.
        """
        if not modulators and not self.encoder_state:
            return self.modulate_batch(batch), None, []
        pairs = zip(self._modulating_variables(), modulators, strict=True)
        with keras.StatelessScope([*given, *pairs], collect_losses=True) as scope:
            affine = self.modulate_batch(batch)
            losses = [*self.encoder.losses, *self.modulation.losses]
            state = [scope.get_current_value(v) for v in self.encoder_state]
        own = tf.add_n([tf.cast(loss, self.compute_dtype) for loss in losses]) if losses else None
        return affine, own, state
