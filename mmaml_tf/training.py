"""Training that can be killed at any instant and started again by the same call."""

import inspect
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from mmaml_tf.arguments import whole_number
from mmaml_tf.checkpoint import (
    Checkpoints,
    learner_state,
    restore_on_all_hosts,
    set_learner_state,
)
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.names import checked


class Validation(NamedTuple):
    """Measurements during training, by which the final weights are chosen.

    Attributes:
        measure: measures a learner; returns numbers by name, of which "score" is to be large.
        every: outer steps between measurements, a multiple of `log_every`; the last step is
            measured in any case.
    """

    measure: Callable[[keras.Model], dict[str, float]]
    every: int


@checked(batch="batch_size")
def train(
    learner: MetaLearner,
    tasks: Any,
    *,
    iterations: int,
    batch_size: int,
    seed: int,
    log_every: int = 100,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 1000,
    on_log: Callable[[dict], None] | None = None,
    validation: Validation | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict]:
    """Trains a compiled learner with `fit`, resuming from the newest checkpoint.

    An interrupted run that is started again ends with the same weights, optimizer state and
    history, bit for bit, as an uninterrupted one on the same machine: batches are a function of
    (seed, step), and checkpoints lie where the averages of metrics start anew. SIGTERM finishes
    the running window of `log_every` steps, saves, and exits with status 143.

    On several hosts, all of them call this. The first one alone reads and writes checkpoints and
    calls `on_log`; SIGTERM to one host stops all. A run may go on with other devices and hosts.

    Args:
        learner: a compiled `Learner`.
        tasks: a task distribution with `dataset(tasks, seed, start)`.
        iterations: outer steps in all, a multiple of `log_every`.
        batch_size: tasks of each step.
        seed: seed of the sequence of batches.
        log_every: steps whose metrics make one row of the history.
        checkpoints: where to keep checkpoints; None for none.
        checkpoint_every: steps between checkpoints, rounded up to whole rows.
        on_log: called with each row, when resuming with those of the checkpoint first.
        validation: see `Validation`; the learner ends with the trained weights of the highest
            score, the earliest of equal ones, instead of the last.
        callbacks: more Keras callbacks; an epoch is one row.

    Returns:
        The history: one row a window with `step`, mean `loss`, the modes' losses, and `skipped`,
        the number of updates left out so far; where `validation` measured, its numbers as
        `validation_<name>`.

    Raises:
        ValueError: when `iterations` or `validation.every` is not a positive multiple of
            `log_every`, the step of the checkpoint is none or beyond `iterations`, the learner
            is not compiled, or the tasks have other modes than it names or, for policies, are of
            another environment.
        CheckpointMismatchError: when the checkpoints belong to another configuration.
        NonFiniteError: see `Learner.fit`.
    """
    if not hasattr(tasks, "dataset") or not hasattr(tasks, "sample"):
        raise ValueError(
            f"tasks is a {type(tasks).__name__}; expected a task distribution, such as "
            "FunctionTasks or ArrayTasks. On a dataset of batches there is learner.fit."
        )
    if checkpoints is not None and not isinstance(checkpoints, Checkpoints):
        raise ValueError(
            f"checkpoints is a {type(checkpoints).__name__}; expected a mmaml_tf.checkpoint."
            "Checkpoints(directory, config)."
        )
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    iterations = whole_number("iterations", iterations)
    batch_size = whole_number("batch_size", batch_size)
    log_every = whole_number("log_every", log_every)
    checkpoint_every = whole_number("checkpoint_every", checkpoint_every)
    seed = whole_number("seed", seed, None)
    if iterations % log_every:
        raise ValueError(
            f"iterations={iterations}, log_every={log_every}: the number of iterations must be a "
            "positive multiple of log_every."
        )
    if validation and (validation.every < 1 or validation.every % log_every):
        raise ValueError(
            f"validation.every={validation.every}, log_every={log_every}: the steps between "
            "validations must be a positive multiple of log_every."
        )
    if not learner.compiled:
        raise ValueError("the learner is not compiled; call compile(optimizer, loss) first.")
    learner.check_tasks(tasks)
    learner.build_for(tasks.sample(batch_size, seed, 0))
    learner.build_optimizer()
    step, history, selected = 0, [], {}
    restored = restore_on_all_hosts(checkpoints, learner.replicas)
    if learner.replicas.host > 0:
        checkpoints = on_log = None
    if restored is not None:
        step, history = restored.step, restored.history
        if step % log_every:
            raise ValueError(
                f"the checkpoint is of step {step}, which is no multiple of log_every={log_every}; "
                "go on with the log_every that the run was started with."
            )
        if step > iterations:
            raise ValueError(
                f"the checkpoint is of step {step}, beyond iterations={iterations}; ask for at "
                "least as many iterations, or keep this run's checkpoints in another place."
            )
        arrays = restored.arrays
        selected = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_SELECTED)}
        set_learner_state(learner, arrays)
        for row in history if on_log else ():
            on_log(row)
    recorder = _Recorder(
        history, selected, log_every, iterations, checkpoints, checkpoint_every, on_log, validation
    )
    if step < iterations:
        _fit(learner, tasks, batch_size, seed, step, recorder, callbacks)
    # In the order in which they were selected, which files keep.
    for variable, value in zip(_selectable(learner), recorder.selected.values(), strict=False):
        variable.assign(value)
    return history


def _fit(learner, tasks, batch_size, seed, step, recorder, callbacks):
    log_every = recorder.log_every
    with _Sigterm(recorder):
        learner.fit(
            _dataset(tasks, batch_size, seed, step, learner.replicas),
            epochs=recorder.iterations // log_every,
            initial_epoch=step // log_every,
            steps_per_epoch=log_every,
            callbacks=[recorder, *(callbacks or ())],
            verbose=0,
        )


def _dataset(tasks, batch_size, seed, start, replicas):
    """Returns the batches from a step on; this host's part of them where tasks can give it."""
    shared = replicas.hosts > 1 and "shard" in inspect.signature(tasks.dataset).parameters
    shard = {"shard": (replicas.host, replicas.hosts)} if shared else {}
    return tasks.dataset(batch_size, seed, start=start, **shard)


def _selectable(learner):
    """Returns what belongs to the weights of one step: they, and moving averages."""
    return [*learner.trainable_variables, *learner.state]


# Names of the selected weights in a checkpoint begin with this.
_SELECTED = "selected_"


class _Recorder(keras.callbacks.Callback):
    """Writes the history and the checkpoints, and selects weights, at the end of each window."""

    def __init__(
        self,
        history,
        selected,
        log_every,
        iterations,
        checkpoints,
        checkpoint_every,
        on_log,
        validation,
    ):
        super().__init__()
        self.history = history
        self.selected = selected
        self.validation = validation
        self.log_every = log_every
        self.iterations = iterations
        self.checkpoints = checkpoints
        self.checkpoint_every = checkpoint_every
        self.on_log = on_log
        self.terminated = False
        self.saved = history[-1]["step"] if history else 0

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.log_every
        row = {"step": step, **{name: float(value) for name, value in (logs or {}).items()}}
        row["skipped"] = int(self.model.guard.skipped.numpy())
        if self.validation and (step % self.validation.every == 0 or step == self.iterations):
            self._validate(row)
        self.history.append(row)
        if self.on_log:
            self.on_log(row)
        # All hosts go on, or none does.
        self.terminated = self.model.replicas.any_host(self.terminated)
        due = step - self.saved >= self.checkpoint_every or step == self.iterations
        if self.checkpoints and (due or self.terminated):
            state = learner_state(self.model) | self.selected
            self.checkpoints.save(step, state, self.history)
            self.saved = step
        if self.terminated:
            sys.exit(128 + signal.SIGTERM)

    def _validate(self, row):
        measured = self.validation.measure(self.model)
        if not isinstance(measured, dict) or "score" not in measured:
            raise ValueError(
                f"the validation's measure returned {measured!r}; expected numbers by name, of "
                'which "score" is to be large.'
            )
        measured = {name: float(value) for name, value in measured.items()}
        # Rounding may differ between hosts, and all are to select the same weights.
        told = self.model.replicas.from_first_host(json.dumps(measured).encode())
        row |= {f"validation_{name}": value for name, value in json.loads(told).items()}
        before = [r["validation_score"] for r in self.history if "validation_score" in r]
        # A score that is no number is worse than any, and none is better than an earlier equal.
        best = max((s for s in before if not math.isnan(s)), default=-math.inf)
        if row["validation_score"] > best:
            self.selected = {
                f"{_SELECTED}{i:03d}": v.numpy().copy()
                for i, v in enumerate(_selectable(self.model))
            }


class _Sigterm:
    """While active, SIGTERM asks the recorder to save and exit at the end of the window."""

    def __init__(self, recorder):
        self.recorder = recorder

    def __enter__(self):
        try:
            self.previous = signal.signal(signal.SIGTERM, self._request)
        except ValueError:  # not in the main thread, where signals are not ours to handle
            self.previous = None

    def _request(self, number, frame):
        del number, frame
        self.recorder.terminated = True

    def __exit__(self, kind, *exception):
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)
        # It may have come after the last window was written.
        if self.recorder.terminated and kind is None:
            sys.exit(128 + signal.SIGTERM)
