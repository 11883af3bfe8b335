"""What happens when a loss, a meta-gradient or an optimizer's update is not finite.

`tf.debugging.check_numerics` is ignored under XLA, so the training step computes flags, keeps
every update that is not finite away from the weights, and remembers what went wrong.
"""

import keras
import tensorflow as tf

#: what a learner may do about an update that is not finite
POLICIES = ("stop", "skip")
#: skipped updates in a row with which training still goes on
MOST_SKIPPED_IN_ROW = 10
# Executions of the training step between readings of the guard
_EXECUTIONS_BETWEEN_CHECKS = 10
# What was not finite about a watched tensor.
_GRADIENT, _UPDATE = 1, 2


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or an update was not finite; the weights are those of the step before."""


class UpdateGuard(keras.layers.Layer):
    """Decides in the graph whether an update may be applied, and remembers why not.

    Args:
        policy: "stop" ends training at the first update that is not finite; "skip" leaves such
            updates out and ends training after more than `MOST_SKIPPED_IN_ROW` in a row.
        weights: names of the weights that are watched.
        modes: number of task modes told apart in messages.
    """

    def __init__(self, policy: str, weights: list[str], modes: int, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.set_policy(policy)
        #: names of what is watched
        self.tensors = ["loss", *weights, "the optimizer's own variables"]
        for name, shape in (
            ("skipped", ()),
            ("skipped_in_row", ()),
            ("stopped", ()),
            ("bad_tensors", (len(self.tensors),)),
            ("bad_modes", (max(modes, 1),)),
            ("origin", (2,)),
        ):
            weight = self.add_weight(
                shape=shape, dtype="int64", initializer="zeros", trainable=False, name=name
            )
            setattr(self, name, weight)

    def set_policy(self, policy: str) -> None:
        """Sets what is done about updates that are not finite, before graphs are traced."""
        if policy not in POLICIES:
            raise ValueError(f"on_nonfinite is {policy!r}; expected one of {POLICIES}.")
        self.most_in_row = 0 if policy == "stop" else MOST_SKIPPED_IN_ROW

    def allow(self, loss, weights, optimizer, tasks, mode, origin, expected=False):
        """Returns a boolean scalar: keep this update or take it back.

        Args:
            loss: boolean, whether the loss is finite.
            weights: for each watched weight two booleans, whether the gradient is finite, with
                the norm of the gradients that are clipped with it, and the updated weight.
            optimizer: boolean, whether the optimizer's own variables are finite.
            tasks: `[T]` boolean, whether each task's loss is finite.
            mode: `[T]` mode of each task, or None.
            origin: `[2]` (seed, step) of the batch, or None.
            expected: boolean, whether the optimizer deals with what is not finite itself.
        """
        true = tf.constant(True)
        gradients, updates = zip((loss, true), *weights, (true, optimizer), strict=True)
        gradients, updates = ~tf.stack(gradients), ~tf.stack(updates)
        # What follows from a gradient that is not finite tells nothing of the optimizer.
        updates &= ~tf.reduce_any(gradients)
        codes = tf.cast(gradients, tf.int64) * _GRADIENT + tf.cast(updates, tf.int64) * _UPDATE
        good = tf.reduce_all(codes == 0) | expected
        running = self.stopped == 0
        failed = running & ~good
        in_row = tf.where(good, tf.constant(0, tf.int64), self.skipped_in_row + 1)
        self.skipped.assign_add(tf.cast(failed, tf.int64))
        self.skipped_in_row.assign(tf.where(running, in_row, self.skipped_in_row))
        self.bad_tensors.assign(tf.where(failed, codes, self.bad_tensors))
        if mode is not None:
            # Modes that the learner was not told of are left out, as negative ones are.
            known = tf.where(mode < self.bad_modes.shape[0], mode, -1)
            of_mode = tf.math.unsorted_segment_sum(
                tf.cast(~tasks, tf.int64), known, self.bad_modes.shape[0]
            )
            self.bad_modes.assign(tf.where(failed, of_mode, self.bad_modes))
        if origin is not None:
            self.origin.assign(tf.where(failed, tf.cast(origin, tf.int64), self.origin))
        self.stopped.assign(
            tf.where(
                self.skipped_in_row > self.most_in_row, tf.ones_like(self.stopped), self.stopped
            )
        )
        return running & good

    def resume(self) -> None:
        """Lets updates pass again after a stop."""
        if self.stopped.numpy():
            self.stopped.assign(0)
            self.skipped_in_row.assign(0)

    def check(self, modes=()) -> None:
        """Raises NonFiniteError if training has stopped, naming step, seed, mode and tensors."""
        if not self.stopped.numpy():
            return
        codes = self.bad_tensors.numpy()
        tensors = [name for name, bad in zip(self.tensors, codes, strict=True) if bad]
        of_optimizer = (codes == _UPDATE).any()
        named = dict(enumerate(modes))
        bad_modes = [named.get(i, i) for i, bad in enumerate(self.bad_modes.numpy()) if bad]
        seed, step = self.origin.numpy()
        in_row = int(self.skipped_in_row.numpy())
        shown = ", ".join(tensors[:4]) + (f" and {len(tensors) - 4} more" if tensors[4:] else "")
        raise NonFiniteError(
            f"not finite at step {step} (task seed {seed}): {shown}"
            + (" as the optimizer updated them from finite gradients" if of_optimizer else "")
            + f"; mode: {', '.join(map(str, bad_modes)) or 'every task loss is finite'}"
            + (f"; {in_row} updates in a row were skipped" if in_row > 1 else "")
            + ". The weights are those of the last good step. Lower the learning rates, set "
            "InnerLoop(clip=...), "
            + ("choose another optimizer, " if of_optimizer else "")
            + "or make the learner with on_nonfinite='skip'."
        )


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends `fit` with NonFiniteError soon after the learner's guard has stopped updates.

    Reading the guard waits for the device, so it is read now and then: the guard keeps what went
    wrong first, and lets no update pass until it is read.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Asks the guard after every so many executions, the same ones on all hosts."""
        if batch % _EXECUTIONS_BETWEEN_CHECKS == 0:
            self.model.guard.check(self.model.modes)

    def on_epoch_end(self, epoch, logs=None):
        """Asks the guard, and adds the updates left out so far to the logs, if there are any."""
        self.model.guard.check(self.model.modes)
        skipped = int(self.model.guard.skipped.numpy())
        if skipped and logs is not None:
            logs["skipped"] = skipped
