"""Evaluation on fixed held-out tasks: per mode and overall, with confidence intervals."""

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.inner_loop import check_steps


class Estimate(NamedTuple):
    """A mean over tasks and the half-width of its 95 % confidence interval.

    Attributes:
        mean: mean over n tasks; over several modes the unweighted mean of the modes' means.
        ci95: 1.96 standard errors of that mean; the unit of independence is the task.
        n: number of tasks.
    """

    mean: float
    ci95: float
    n: int

    @classmethod
    def of(cls, values, mode=None) -> "Estimate":
        """Estimates the mean of `[n]` per-task values.

        Args:
            values: `[n]`.
            mode: `[n]` mode of each task. The number of tasks of a mode is fixed, so that
                differences between modes are no part of the error (stratified sampling).
        """
        values = np.asarray(values, np.float64)
        mode = np.zeros(len(values)) if mode is None else np.asarray(mode)
        strata = [values[mode == index] for index in np.unique(mode)]
        variances = [s.var(ddof=1) / len(s) if len(s) > 1 else np.nan for s in strata]
        error = np.sqrt(np.sum(variances)) / len(strata)
        return cls(float(np.mean([s.mean() for s in strata])), float(1.96 * error), len(values))

    def __str__(self):
        return f"{self.mean:.3f} ± {self.ci95:.3f}"


class Report(NamedTuple):
    """What was measured on each held-out task, with one learner.

    Attributes:
        measures: by name, `[C, N]` values of N tasks after each of `curve` inner steps: the loss
            against each kind of target, or accuracy and loss of a classification. The first is
            the headline.
        mode: `[N]` mode of each task.
        modes: names of the modes.
        steps: the number of inner steps that counts as adapted.
        curve: the C numbers of inner steps that were measured.
    """

    measures: dict[str, np.ndarray]
    mode: np.ndarray
    modes: tuple[str, ...]
    steps: int
    curve: tuple[int, ...]

    def estimate(self, mode: str | None = None, steps: int | None = None, measure=None) -> Estimate:
        """Returns the mean over a mode (None: over all modes) after some inner steps."""
        return self._estimate(self.values(mode, steps, measure), mode)

    def values(self, mode: str | None = None, steps: int | None = None, measure=None):
        """Returns the values `[n]` of a mode's tasks (None: of all) after some inner steps.

        Raises:
            ValueError: for a number of steps that was not measured.
        """
        measure = next(iter(self.measures)) if measure is None else measure
        steps = self.steps if steps is None else steps
        if steps not in self.curve:
            raise ValueError(f"steps={steps} was not measured; measured were {self.curve}.")
        values = self.measures[measure][self.curve.index(steps)]
        return values if mode is None else values[self.mode == self.modes.index(mode)]

    def difference(self, other: "Report", mode: str | None = None, measure=None) -> Estimate:
        """Returns the mean paired difference self − other after adaptation.

        Raises:
            ValueError: when the two were not evaluated on the same number of tasks and modes.
        """
        if self.modes != other.modes or not np.array_equal(self.mode, other.mode):
            raise ValueError("a paired difference needs both reports on the same held-out tasks.")
        own, others = (r.values(mode, measure=measure) for r in (self, other))
        return self._estimate(own - others, mode)

    def _estimate(self, values, mode):
        return Estimate.of(values, self.mode if mode is None else None)

    def __str__(self):
        steps = [f"after {steps} steps" for steps in (self.curve[0], self.steps)]
        rows = [f"{'mode':12s} {steps[0]:>18s} {steps[1]:>18s}"]
        for mode in (*self.modes, None):
            before, after = self.estimate(mode, self.curve[0]), self.estimate(mode)
            rows.append(f"{mode or 'overall':12s} {before!s:>18s} {after!s:>18s}")
        return "\n".join(rows)


def evaluate(
    learner,
    tasks,
    tasks_per_mode: int = 1000,
    seed: int = 7,
    steps: int | None = None,
    curve: int | Sequence[int] | None = None,
    batch: int | None = None,
) -> Report:
    """Evaluates a learner on held-out tasks.

    Args:
        learner: a built and compiled `Learner`.
        tasks: a task distribution with `held_out`, or what that returned.
        tasks_per_mode: tasks drawn of each mode, when `tasks` is a distribution.
        seed: seed of those tasks.
        steps: inner steps that count as adapted; by default the inner loop's own.
        curve: numbers of inner steps to measure after, or one number for 0 to that many; by
            default 0 and `steps`, which are always among them.
        batch: tasks evaluated at once; by default what fits the tasks. It does not change the
            result.

    Returns:
        A `Report` of each task's accuracy and loss, for tasks with class labels, or else of its
        loss against each kind of target; print it, or ask it for estimates.

    Raises:
        ValueError: for shapes that do not fit the learner, negative steps, or a learner that
            chooses by mode and tasks of other modes.
    """
    held_out = tasks if hasattr(tasks, "batches") else tasks.held_out(tasks_per_mode, seed)
    return Evaluator(learner, steps, curve)(held_out, batch)


class Evaluator:
    """Evaluates one learner again and again without tracing its graph anew.

    The graph reads the learner's weights as they are when it runs; everything else, such as the
    inner loop's settings, is that of the first evaluation.

    Args:
        learner: see `evaluate`.
        steps: see `evaluate`.
        curve: see `evaluate`.
    """

    def __init__(self, learner, steps: int | None = None, curve=None):
        self.learner = learner
        self.steps = check_steps(learner.inner_loop.steps if steps is None else steps)
        if isinstance(curve, numbers.Integral):
            curve = range(check_steps(curve) + 1)
        self.curve = sorted({0, self.steps, *map(check_steps, curve or ())})
        self._predict = _predictor(learner, self.curve)

    def __call__(self, held_out, batch: int | None = None) -> Report:
        """Returns the `Report` of held-out tasks; see `evaluate`."""
        self.learner.check_modes(held_out.modes)
        parts = []
        for episodes, targets in held_out.batches(batch):
            self.learner.build_for(episodes)
            path = self._predict(*_inputs(self.learner, episodes))
            parts.append(_measure(self.learner, targets, path))
        measures = {
            name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]
        }
        return Report(measures, held_out.mode, held_out.modes, self.steps, tuple(self.curve))


def _measure(learner, targets, path):
    """Returns what is measured of `[C, T, Q, ...]` predictions, by name, as `[C, T]`."""
    measures = {}
    for name, target in targets.items():
        losses = np.stack([learner.task_losses(tf.constant(target), p) for p in path])
        if learner.predicts_classes:
            found = np.argmax(path, axis=-1) == np.reshape(target, path.shape[1:3])
            # Among scores of which one is NaN, argmax finds that one.
            found &= np.isfinite(path).all(axis=-1)
            measures |= {"accuracy": found.mean(axis=-1), "loss": losses}
        else:
            measures[name] = losses
    return measures


def predictions(learner, episodes, steps: int) -> np.ndarray:
    """Returns predictions for the queries after each of 0 to S inner steps.

    Args:
        learner: a built `Learner`.
        episodes: `Episodes` of T tasks; their query targets are not looked at.
        steps: number of inner steps S.

    Returns:
        `[S + 1, T, Q, ...]`.
    """
    return _predictor(learner, range(steps + 1))(*_inputs(learner, episodes)).numpy()


def _inputs(learner, episodes):
    support_x, support_y, query_x, _ = learner.as_inputs(episodes)
    mode = None if episodes.mode is None else tf.convert_to_tensor(episodes.mode)
    return support_x, support_y, query_x, mode


def _predictor(learner, curve):
    """Returns a graph that predicts after each of some numbers of inner steps."""

    # One graph for each shape: some layers are faster where the number of tasks is known.
    @tf.function(autograph=False)
    def predict(support_x, support_y, query_x, mode):
        path, affine = learner.adaptation_path(support_x, support_y, mode, max(curve))
        support = support_x, support_y
        return tf.stack([learner.predict_adapted(path[s], affine, support, query_x) for s in curve])

    return predict


def task_embeddings(learner, held_out, batch: int | None = None) -> np.ndarray:
    """Returns the embeddings `[N, E]` of held-out tasks' support sets."""
    embed = tf.function(learner.embed, autograph=False, reduce_retracing=True)
    batches = (episodes for episodes, _ in held_out.batches(batch))
    return np.concatenate([embed(*learner.as_inputs(episodes)[:2]) for episodes in batches])
