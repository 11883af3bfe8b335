"""The outer step: gradients over all tasks, clipped, checked and applied.

It knows nothing of what tasks are made of.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division, layers
from mmaml_tf.episodes import is_shared
from mmaml_tf.fitting import TaskModel
from mmaml_tf.keras_internals import loss_metric


class Mean(keras.metrics.Mean):
    """A mean that is NaN, and not 0, where there was nothing to average."""

    def result(self) -> tf.Tensor:
        """Returns the mean of what was added since the last reset."""
        return _mean(self)


def _mean(metric):
    return keras.ops.divide(metric.total, keras.ops.cast(metric.count, metric.dtype))


class OuterStep(TaskModel):
    """The part of a meta-learner that trains it.

    A subclass has a task `network`, an `encoder` and a `modulation` (or None), a `guard` and
    `by_mode` metrics, and says what the data of a task are: `modulate_batch` and `outer_losses`.
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

    def update_metrics(
        self, outputs: tf.Tensor, losses: tf.Tensor, mode: tf.Tensor | None, targets: Any
    ) -> dict:
        """Updates and returns the metrics of an outer step.

        Args:
            outputs: `[T, ...]`, see `outer_losses`.
            losses: `[T]`.
            mode: `[T]`, or None.
            targets: what was given to `outer_step`.
        """
        raise NotImplementedError

    def task_weights(self, tasks: int, mode: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the weight of each task's loss in the outer loss, `[T]`: that of their mean."""
        del mode
        return tf.fill([tasks], 1 / tf.cast(tasks, self.compute_dtype))

    def gradient_groups(self) -> list[list]:
        """Returns the groups of variables whose outer gradients are clipped separately."""
        return [self.network.trainable_variables, *filter(None, [self._modulating_variables()])]

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

    def outer_step(
        self,
        batch: Sequence,
        mode: tf.Tensor | None = None,
        origin: Any = None,
        targets: Any = None,
    ) -> dict:
        """Takes one outer step on a batch of tasks, divided among the replicas.

        Args:
            batch: tensors `[T, ...]`, or None where there is nothing.
            mode: `[T]` mode of each task, or None.
            origin: `[2]` (seed, step) of the batch; `[4]` (seed, step, host, hosts) where all that
                is given is this host's part of a larger one; or None.
            targets: `[T, ...]` what the metrics need besides outputs and losses, or None.

        Returns:
            The metrics by name.
        """
        replicas = self.replicas
        shared = is_shared(origin)
        first = next(array for array in batch if array is not None)
        tasks = first.shape[0] or tf.shape(first)[0]
        if shared:
            tasks *= replicas.hosts
            with tf.control_dependencies([replicas.assert_share(origin[2:])]):
                mode, targets = replicas.of_all_hosts([mode, targets])
                origin = tf.identity(origin[:2])
        weights = self.task_weights(tasks, mode)
        own = replicas.share(weights) if shared else weights
        (losses, outputs), sums = replicas.run(self._gradients, [*batch, own], shared)
        return self._update(sums, losses, outputs, weights, mode, origin, targets)

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
        return division.Division.of(tasks, size, **given)

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        self._shard_gradients = self._compiled(self._losses_and_gradients)
        # A program of XLA assigns variables of one device.
        self._update = self._compiled(self._apply, self.xla and self.replicas.here == 1)

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

    def _apply(self, sums, losses, outputs, weights, mode, origin, targets):
        """Clips and applies the outer gradient, and returns the metrics.

        Everything is applied first and taken back where something is not finite, so that what an
        optimizer makes of finite gradients is checked too.
        """
        # At the end of a dataset a step fails, and what needs no data, such as a counter, must not
        # run before it does.
        with tf.control_dependencies([losses]):
            self._apply_or_refuse(sums, losses, weights, mode, origin)
        return self.update_metrics(outputs, losses, mode, targets)

    def _apply_or_refuse(self, sums, losses, weights, mode, origin):
        variables = self._network_variables() + self._modulating_variables()
        gradients, changes = sums[: len(variables)], sums[len(variables) :]
        scale = self._loss_scale()
        if scale is not None:
            gradients = [g / tf.cast(scale, g.dtype) for g in gradients]
        gradients, finite = self._clip(gradients, variables)
        loss = tf.reduce_sum(weights * losses)
        loss_finite, gradients_finite = tf.math.is_finite(loss), tf.reduce_all(finite)
        if scale is not None:
            gradients = [g * tf.cast(scale, g.dtype) for g in gradients]

        state = self.state
        touched = [*variables, *self.optimizer.variables, *state]
        before = [tf.identity(tf.convert_to_tensor(v)) for v in touched]
        self.optimizer.apply(gradients, variables)
        for variable, change, index in zip(state, changes, range(len(state)), strict=True):
            if index < len(self.network.state):
                change = _mean_change(change, tf.shape(losses)[0])
            variable.assign_add(change)
        after = [_is_finite(v) for v in touched]
        overflow = self._scale_overflows(scale, loss_finite, gradients_finite)
        flags = {id(v): (f, a) for v, f, a in zip(variables, finite, after, strict=False)}
        true = tf.constant(True)
        allowed = self.guard.allow(
            loss_finite,
            [flags.get(id(v), (true, true)) for v in self.guarded],
            tf.reduce_all(after[len(variables) :]),
            tf.math.is_finite(losses),
            mode,
            origin,
            expected=overflow,
        )
        for variable, value in zip(touched, before, strict=True):
            variable.assign(tf.where(allowed, tf.convert_to_tensor(variable), value))

    def _loss_scale(self):
        """Returns by what the optimizer scales a loss, or None."""
        dynamic = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if not dynamic and self.optimizer.loss_scale_factor is None:
            return None
        return tf.convert_to_tensor(self.optimizer.scale_loss(tf.ones([])))

    def _scale_overflows(self, scale, loss_finite, gradients_finite):
        """Whether gradients overflowed by a scale that the optimizer lowers by itself."""
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return tf.constant(False)
        return loss_finite & ~gradients_finite & (scale > 1)

    def _clip(self, gradients, variables):
        """Clips each group by its norm; returns the gradients and whether each is finite."""
        names = [id(v) for v in variables]
        clipped = dict(zip(names, gradients, strict=True))
        finite = {name: tf.reduce_all(tf.math.is_finite(g)) for name, g in clipped.items()}
        for group in self.gradient_groups():
            names_of_group = [id(v) for v in group]
            own = [clipped[name] for name in names_of_group]
            norm = tf.linalg.global_norm(own)
            # The squares of large gradients overflow, here and in Adam, before they do themselves.
            overflow = ~tf.math.is_finite(norm)
            overflow &= tf.reduce_all([finite[name] for name in names_of_group])
            if self.outer_clip is not None:
                own, _ = tf.clip_by_global_norm(own, self.outer_clip, use_norm=norm)
            clipped |= dict(zip(names_of_group, own, strict=True))
            finite |= {name: finite[name] & ~overflow for name in names_of_group}
        return [clipped[name] for name in names], [finite[name] for name in names]

    # -- metrics --------------------------------------------------------------------------------

    def get_metrics_result(self) -> dict:
        """Returns the metrics by name; the loss is NaN, and not 0, where none was finite."""
        return super().get_metrics_result() | {"loss": _mean(loss_metric(self))}

    def _update_loss(self, losses, keep=None):
        """Updates the mean loss; returns which tasks it is of, `[T]`.

        Args:
            losses: `[T]`.
            keep: `[T]` which tasks count. By default those whose loss is finite, as in training,
                where the guard tells of the others.
        """
        keep = tf.math.is_finite(losses) if keep is None else keep
        weights = tf.cast(keep, losses.dtype)
        loss_metric(self).update_state(tf.where(keep, losses, 0.0), sample_weight=weights)
        return keep

    def _update_by_mode(self, values, mode, keep=None):
        """Updates the means by mode of `[T]` values; see `_update_loss`."""
        keep = tf.math.is_finite(values) if keep is None else keep
        for index, metric in enumerate(self.by_mode if mode is not None else ()):
            counts = keep & (mode == index)
            metric.update_state(
                tf.where(counts, values, 0.0), sample_weight=tf.cast(counts, values.dtype)
            )


def _mean_change(change, tasks):
    if change.dtype.is_floating:
        return change / tf.cast(tasks, change.dtype)
    return change // tf.cast(tasks, change.dtype)  # seeds change alike in every task


def _is_finite(variable):
    value = tf.convert_to_tensor(variable)
    return tf.reduce_all(tf.math.is_finite(value)) if value.dtype.is_floating else tf.constant(True)
