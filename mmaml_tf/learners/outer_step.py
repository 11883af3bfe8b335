"""The outer step: gradients over all tasks and replicas, clipped, checked and applied.

It knows nothing of what tasks are made of.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mmaml_tf.episodes import is_shared
from mmaml_tf.keras_internals import loss_metric
from mmaml_tf.learners.outer_gradients import OuterGradients


class Mean(keras.metrics.Mean):
    """A mean that is NaN, and not 0, where there was nothing to average."""

    def result(self) -> tf.Tensor:
        """Returns the mean of what was added since the last reset."""
        return _mean(self)


def _mean(metric):
    return keras.ops.divide(metric.total, keras.ops.cast(metric.count, metric.dtype))


class OuterStep(OuterGradients):
    """The part of a meta-learner that trains it.

    A subclass has a `guard` and `by_mode` metrics, and says what `OuterGradients` needs.
    """

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

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        # A program of XLA assigns variables of one device.
        self._update = self._compiled(self._apply, self.xla and self.replicas.here == 1)

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
