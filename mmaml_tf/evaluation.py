"""Evaluation on fixed held-out tasks: per mode and overall, with confidence intervals."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.inner_loop import check_steps
from mmaml_tf.tasks.held_out import HeldOut


class Estimate(NamedTuple):
    """A mean over tasks and the half-width of its 95 % confidence interval.

    Attributes:
        mean: mean over n tasks.
        ci95: 1.96 standard errors of that mean; the unit of independence is the task.
        n: number of tasks.
    """

    mean: float
    ci95: float
    n: int

    @classmethod
    def of(cls, values) -> "Estimate":
        """Estimates the mean of `[n]` per-task values."""
        values = np.asarray(values, np.float64)
        deviation = values.std(ddof=1) if len(values) > 1 else np.nan
        return cls(
            float(values.mean()), float(1.96 * deviation / np.sqrt(len(values))), len(values)
        )

    def __str__(self):
        return f"{self.mean:.3f} ± {self.ci95:.3f}"


class Report(NamedTuple):
    """Per-task losses of one learner on held-out tasks.

    Attributes:
        losses: by target name, `[S + 1, N]` losses of N tasks after 0 to S inner steps.
        mode: `[N]` mode of each task.
        modes: names of the modes.
        steps: the number of inner steps that counts as adapted.
    """

    losses: dict[str, np.ndarray]
    mode: np.ndarray
    modes: tuple[str, ...]
    steps: int

    def estimate(self, mode: str | None = None, steps: int | None = None, target=None) -> Estimate:
        """Returns the mean loss of a mode (None: all tasks) after some inner steps."""
        return Estimate.of(self.task_losses(mode, steps, target))

    def task_losses(self, mode: str | None = None, steps: int | None = None, target=None):
        """Returns the losses `[n]` of a mode's tasks (None: of all) after some inner steps."""
        target = next(iter(self.losses)) if target is None else target
        losses = self.losses[target][self.steps if steps is None else steps]
        return losses if mode is None else losses[self.mode == self.modes.index(mode)]

    def difference(self, other: "Report", mode: str | None = None, target=None) -> Estimate:
        """Returns the mean paired difference self − other of the adapted losses.

        Raises:
            ValueError: when the two were not evaluated on the same number of tasks and modes.
        """
        if self.modes != other.modes or not np.array_equal(self.mode, other.mode):
            raise ValueError("a paired difference needs both reports on the same held-out tasks.")
        return Estimate.of(
            self.task_losses(mode, target=target) - other.task_losses(mode, target=target)
        )

    def __str__(self):
        rows = [f"{'mode':12s} {'post-modulation':>18s} {'post-adaptation':>18s}"]
        for mode in (*self.modes, None):
            before, after = self.estimate(mode, 0), self.estimate(mode)
            rows.append(f"{mode or 'overall':12s} {before!s:>18s} {after!s:>18s}")
        return "\n".join(rows)


def evaluate(
    learner,
    tasks,
    tasks_per_mode: int = 1000,
    seed: int = 7,
    steps: int | None = None,
    curve: int | None = None,
    batch: int = 250,
) -> Report:
    """Evaluates a learner on held-out tasks.

    Args:
        learner: a built `Learner`.
        tasks: a task distribution with `held_out`, or a `HeldOut` set of tasks.
        tasks_per_mode: tasks drawn of each mode, when `tasks` is a distribution.
        seed: seed of those tasks.
        steps: inner steps that count as adapted; by default the inner loop's own.
        curve: number of inner steps that losses are kept for; by default `steps`.
        batch: tasks evaluated at once; it does not change the result.

    Returns:
        A `Report` of per-task losses; print it, or ask it for estimates.

    Raises:
        ValueError: for shapes that do not fit the learner, or negative steps.
    """
    steps = check_steps(learner.inner_loop.steps if steps is None else steps)
    curve = max(steps, check_steps(steps if curve is None else curve))
    held_out = tasks if isinstance(tasks, HeldOut) else tasks.held_out(tasks_per_mode, seed)
    learner.build_for(held_out.episodes)
    path = predictions(learner, held_out.episodes, curve, batch)
    losses = {
        name: np.stack([learner.task_losses(tf.constant(target), p) for p in path])
        for name, target in held_out.targets.items()
    }
    return Report(losses, held_out.episodes.mode, held_out.modes, steps)


def predictions(learner, episodes, steps: int, batch: int = 250) -> np.ndarray:
    """Returns predictions for the queries after each of 0 to S inner steps.

    Args:
        learner: a built `Learner`.
        episodes: `Episodes` of N tasks; their query targets are not looked at.
        steps: number of inner steps S.
        batch: tasks adapted at once.

    Returns:
        `[S + 1, N, Q, ...]`.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(support_x, support_y, query_x, mode):
        path, affine = learner.adaptation_path(support_x, support_y, mode, steps)
        support = support_x, support_y
        return tf.stack([learner.predict_adapted(w, affine, support, query_x) for w in path])

    inputs = (episodes.support_x, episodes.support_y, episodes.query_x, episodes.mode)
    starts = range(0, len(episodes.support_x), batch)
    parts = [predict(*(tf.constant(a[s : s + batch]) for a in inputs)) for s in starts]
    return np.concatenate(parts, axis=1)


def task_embeddings(learner, held_out: HeldOut, batch: int = 250) -> np.ndarray:
    """Returns the embeddings `[N, E]` of held-out tasks' support sets."""
    embed = tf.function(learner.embed, autograph=False, reduce_retracing=True)
    x, y = held_out.episodes.support_x, held_out.episodes.support_y
    starts = range(0, len(x), batch)
    return np.concatenate([embed(x[s : s + batch], y[s : s + batch]) for s in starts])
