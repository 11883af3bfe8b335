"""What happens when a loss or a meta-gradient is not finite.

`tf.debugging.check_numerics` is ignored under XLA, so the training step computes flags, keeps
every update that is not finite away from the weights, and remembers what went wrong.
"""

import keras
import tensorflow as tf

#: what a learner may do about an update that is not finite
POLICIES = ("stop", "skip")
#: skipped updates in a row with which training still goes on
MOST_SKIPPED_IN_ROW = 10


class NonFiniteError(FloatingPointError):
    """A loss or a meta-gradient was not finite; the weights are those of the last good step."""


class UpdateGuard(keras.layers.Layer):
    """Decides in the graph whether an update may be applied, and remembers why not.

    Args:
        policy: "stop" ends training at the first update that is not finite; "skip" leaves such
            updates out and ends training after more than `MOST_SKIPPED_IN_ROW` in a row.
        tensors: names of the tensors whose finiteness is watched: the loss, and each weight for
            its gradient and the norm of the gradients that are clipped with it.
        modes: number of task modes told apart in messages.
    """

    def __init__(self, policy: str, tensors: list[str], modes: int, **kwargs):
        super().__init__(trainable=False, **kwargs)
        if policy not in POLICIES:
            raise ValueError(f"on_nonfinite is {policy!r}; expected one of {POLICIES}.")
        self.most_in_row = 0 if policy == "stop" else MOST_SKIPPED_IN_ROW
        self.tensors = tensors
        for name, shape in (
            ("skipped", ()),
            ("skipped_in_row", ()),
            ("stopped", ()),
            ("bad_tensors", (len(tensors),)),
            ("bad_modes", (max(modes, 1),)),
            ("origin", (2,)),
        ):
            weight = self.add_weight(
                shape=shape, dtype="int64", initializer="zeros", trainable=False, name=name
            )
            setattr(self, name, weight)

    def allow(self, finite, finite_tasks, mode, origin):
        """Returns a boolean scalar: apply this update or leave it out.

        Args:
            finite: boolean for each watched tensor.
            finite_tasks: `[T]` boolean, whether each task's loss is finite.
            mode: `[T]` mode of each task, or None.
            origin: `[2]` (seed, step) of the batch, or None.
        """
        bad = tf.cast(~tf.stack(finite), tf.int64)
        good = tf.reduce_sum(bad) == 0
        running = self.stopped == 0
        failed = running & ~good
        in_row = tf.where(good, tf.constant(0, tf.int64), self.skipped_in_row + 1)
        self.skipped.assign_add(tf.cast(failed, tf.int64))
        self.skipped_in_row.assign(tf.where(running, in_row, self.skipped_in_row))
        self.bad_tensors.assign(tf.where(failed, bad, self.bad_tensors))
        if mode is not None:
            # Modes that the learner was not told of are left out, as negative ones are.
            known = tf.where(mode < self.bad_modes.shape[0], mode, -1)
            of_mode = tf.math.unsorted_segment_sum(
                tf.cast(~finite_tasks, tf.int64), known, self.bad_modes.shape[0]
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
        if int(self.stopped):
            self.stopped.assign(0)
            self.skipped_in_row.assign(0)

    def check(self, modes=()) -> None:
        """Raises NonFiniteError if training has stopped, naming step, seed, mode and tensors."""
        if not int(self.stopped):
            return
        tensors = [n for n, bad in zip(self.tensors, self.bad_tensors.numpy(), strict=True) if bad]
        named = dict(enumerate(modes))
        bad_modes = [named.get(i, i) for i, bad in enumerate(self.bad_modes.numpy()) if bad]
        seed, step = self.origin.numpy()
        in_row = int(self.skipped_in_row)
        shown = ", ".join(tensors[:4]) + (f" and {len(tensors) - 4} more" if tensors[4:] else "")
        raise NonFiniteError(
            f"not finite at step {step} (task seed {seed}): {shown}; "
            f"mode: {', '.join(map(str, bad_modes)) or 'every task loss is finite'}"
            + (f"; {in_row} updates in a row were skipped" if in_row > 1 else "")
            + ". The weights are those of the last good step. Lower the learning rates, set "
            "InnerLoop(clip=...), or make the learner with on_nonfinite='skip'."
        )


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends `fit` with NonFiniteError as soon as the learner's guard has stopped updates."""

    def on_train_batch_end(self, batch, logs=None):
        """Asks the guard after each execution."""
        self.model.guard.check(self.model.modes)
