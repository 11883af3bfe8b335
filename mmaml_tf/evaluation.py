"""Evaluation on fixed held-out tasks: per mode and overall, with confidence intervals."""

import functools
import inspect
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mmaml_tf.episodes import Episodes, as_mode, check_episodes
from mmaml_tf.inner_loop import check_steps
from mmaml_tf.learners import Learner
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.names import checked
from mmaml_tf.report import Estimate, Report
from mmaml_tf.task_metrics import TaskMetrics
from mmaml_tf.tasks.given import FirstTasks, GivenTasks

__all__ = ["Estimate", "Evaluator", "Report", "evaluate", "predictions", "task_embeddings"]


@checked(batch="batch_size")
def evaluate(
    learner: MetaLearner,
    tasks: Any,
    tasks_per_mode: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    *,
    curve: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    rollouts: Any = None,
    examples_per_mode: int | None = None,
) -> Report:
    """Evaluates a learner on held-out tasks.

    Args:
        learner: a built and compiled `Learner` or `rl.PolicyLearner`.
        tasks: a task distribution with `held_out`, or what that returned; or tasks at hand, as
            `Episodes`, a list of them, or a finite tf.data.Dataset of them, in batches of any
            sizes. Modes of these are indices of the learner's. For policies, `rl.GoalTasks` or
            what its `held_out` returned.
        tasks_per_mode: tasks that a distribution draws of each mode, by default as many as its
            `held_out` does; of other tasks, the first so many of each mode, by default all.
        seed: seed of the tasks that a distribution draws, by default that of its `held_out`.
        steps: inner steps that count as adapted; by default the inner loop's own.
        curve: numbers of inner steps to measure after, or one number for 0 to that many; by
            default 0 and `steps`, which are always among them. Policies are measured after every
            step, and take no `curve`.
        batch_size: tasks evaluated at once; by default what fits the tasks. It does not change the
            result. Policies take none.
        rollouts: for policies, the `rl.rollouts.Rollouts` to act in; by default those given to
            `compile`.
        examples_per_mode: for policies, tasks of each mode of which one rollout is kept, by
            default 4.

    Returns:
        A `Report` of each task's accuracy and loss, for tasks with class labels, or else of its
        loss against each kind of target, and of the metrics that the learner was compiled with,
        which are reset for each task. Scores that are not finite are no hit. For policies, a
        `rl.evaluation.PolicyReport` of undiscounted returns. Print the report, or ask it for
        estimates.

    Raises:
        ValueError: for an argument that has no meaning for the learner, shapes that do not fit it,
            negative steps, a learner that is not compiled or has no weights, one that chooses by
            mode and tasks of other modes, an endless dataset, or a metric that does not give one
            number for a task alone.
    """
    given = {
        "tasks_per_mode": tasks_per_mode,
        "seed": seed,
        "steps": steps,
        "curve": curve,
        "batch_size": batch_size,
        "rollouts": rollouts,
        "examples_per_mode": examples_per_mode,
    }
    given = {name: value for name, value in given.items() if value is not None}
    measure = evaluation_of.dispatch(type(learner))
    if other := sorted(set(given) - set(inspect.signature(measure).parameters)):
        raise ValueError(
            f"evaluate got {other[0]}, which has no meaning for a {type(learner).__name__}; leave "
            "it out."
        )
    return measure(learner, tasks, **given)


@functools.singledispatch
def evaluation_of(learner, tasks, **given) -> Report:
    """Evaluates a learner of one kind, which registers how; see `evaluate`."""
    raise ValueError(
        f"learner is a {type(learner).__name__}; expected a mmaml_tf.Learner, or a "
        "mmaml_tf.rl.PolicyLearner."
    )


@evaluation_of.register
def _(
    learner: Learner, tasks, tasks_per_mode=None, seed=None, steps=None, curve=None, batch_size=None
) -> Report:
    evaluator = Evaluator(learner, steps, curve)
    return evaluator(_held_out(learner, tasks, tasks_per_mode, seed), batch_size)


def _held_out(learner, tasks, tasks_per_mode=None, seed=None):
    """Returns what an evaluation takes as held-out tasks: with `batches`, `mode` and `modes`."""
    if hasattr(tasks, "held_out"):
        given = {"tasks_per_mode": tasks_per_mode, "seed": seed}
        return tasks.held_out(**{k: v for k, v in given.items() if v is not None})
    if seed is not None:
        raise ValueError(f"seed={seed}: these tasks are drawn already; leave the seed out.")
    if not hasattr(tasks, "batches"):
        if not isinstance(tasks, Episodes | tf.data.Dataset | list | tuple):
            raise ValueError(
                f"tasks is a {type(tasks).__name__}; expected a task distribution, its "
                "held_out(...), Episodes, a list of them, or a tf.data.Dataset of them."
            )
        tasks = GivenTasks(tasks, learner.modes)
    return tasks if tasks_per_mode is None else FirstTasks(tasks, tasks_per_mode)


def check_ready(learner) -> None:
    """Raises ValueError for a learner that is not compiled or has no weights yet."""
    if not learner.compiled:
        raise ValueError("the learner is not compiled; call compile(optimizer, loss) first.")
    if not learner.built:
        raise ValueError(
            "the learner has no weights yet; train it, load it from a file, or call "
            "build_for(tasks.sample(1, seed=0)) to evaluate its initial ones."
        )


class Evaluator:
    """Evaluates one learner again and again without tracing its graph anew.

    The graph reads the learner's weights as they are when it runs; everything else, such as the
    inner loop's settings, is that of the first evaluation.

    Args:
        learner: see `evaluate`.
        steps: see `evaluate`.
        curve: see `evaluate`.
    """

    def __init__(
        self,
        learner: Learner,
        steps: int | None = None,
        curve: int | Sequence[int] | None = None,
    ):
        if not isinstance(learner, Learner):
            raise ValueError(f"learner is a {type(learner).__name__}; expected a mmaml_tf.Learner.")
        check_ready(learner)
        self.learner = learner
        self.steps = check_steps(learner.inner_loop.steps if steps is None else steps)
        if isinstance(curve, numbers.Integral):
            curve = range(check_steps(curve) + 1)
        curve = () if curve is None else map(check_steps, curve)
        self.curve = sorted({0, self.steps, *curve})
        self._predict = _predictor(learner, self.curve)
        self._metrics = TaskMetrics(learner)

    def __call__(self, held_out: Any, batch_size: int | None = None) -> Report:
        """Returns the `Report` of held-out tasks; see `evaluate`."""
        if self.learner.needs_mode:
            self.learner.check_modes(held_out.modes)
        parts = []
        for episodes, targets in held_out.batches(batch_size):
            self._check(episodes)
            path = self._predict(*_inputs(self.learner, episodes))
            parts.append(self._measure(episodes, targets, path))
        measures = {
            name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]
        }
        curve = tuple(self.curve)
        return Report(measures, held_out.mode, held_out.modes, self.steps, curve, held_out.digest())

    def _check(self, episodes):
        """Raises ValueError for episodes whose points are not those of the learner."""
        check_episodes(episodes)
        for name, built in zip(("x", "y"), self.learner.support_shapes, strict=True):
            built = tuple(built[2:])
            labels = name == "y" and self.learner.predicts_classes
            expected = {(), (1,)} if labels else {built}
            for half in ("support", "query"):
                given = tuple(getattr(episodes, f"{half}_{name}").shape[2:])
                if given not in expected:
                    raise ValueError(
                        f"{half}_{name} has points of shape {given}; this learner was built for "
                        f"{built}."
                    )

    def _measure(self, episodes, targets, path):
        """Returns what is measured of `[C, T, Q, ...]` predictions, by name, as `[C, T]`."""
        measures = {}
        tensors = [
            self.learner.as_inputs(episodes._replace(query_y=target))[-1]
            for target in targets.values()
        ]
        for name, target in zip(targets, tensors, strict=True):
            if self.learner.predicts_classes:
                measures["accuracy"] = _accuracies(target, path)
                name = "loss"
            losses = [self.learner.task_losses(target, predictions) for predictions in path]
            measures[name] = np.stack(losses)
        return measures | self._metrics(tensors[0], path, measures)


def _accuracies(labels, path):
    labels = np.reshape(labels, path.shape[1:3])
    if labels.min() < 0 or labels.max() >= path.shape[-1]:
        raise ValueError(
            f"query_y has class labels from {labels.min()} to {labels.max()}; the learner has "
            f"{path.shape[-1]} classes, 0 to {path.shape[-1] - 1}."
        )
    found = np.argmax(path, axis=-1) == labels
    # Among scores of which one is NaN, argmax finds that one.
    return (found & np.isfinite(path).all(axis=-1)).mean(axis=-1)


def predictions(learner: Learner, episodes: Episodes, steps: int) -> np.ndarray:
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
    return support_x, support_y, query_x, as_mode(episodes.mode)


def _predictor(learner, curve):
    """Returns a graph that predicts after each of some numbers of inner steps."""

    def predict(support_x, support_y, query_x, mode):
        path, affine = learner.adaptation_path(support_x, support_y, mode, max(curve))
        support = support_x, support_y
        return tf.stack([learner.predict_adapted(path[s], affine, support, query_x) for s in curve])

    # One graph for each shape: some layers are faster where the number of tasks is known. Tasks
    # of many sizes share one graph instead.
    of_shape = tf.function(predict, autograph=False)
    of_any = tf.function(predict, autograph=False)
    shapes = set()

    def choose(*inputs):
        shape = tuple(None if array is None else tuple(array.shape) for array in inputs)
        if shape in shapes or len(shapes) < _GRAPHS:
            shapes.add(shape)
            return of_shape(*inputs)
        sizes = [None if array is None else _of_any_size(array) for array in inputs]
        return of_any.get_concrete_function(*sizes)(*(a for a in inputs if a is not None))

    return choose


def _of_any_size(array):
    """Returns the type of batches of any numbers of tasks and points."""
    rank = array.shape.rank
    return tf.TensorSpec([None] * min(2, rank) + array.shape[2:].as_list(), array.dtype)


# Shapes of batches that have a graph of their own.
_GRAPHS = 4


def task_embeddings(
    learner: MetaLearner, held_out: Any, batch_size: int | None = None
) -> np.ndarray:
    """Returns the embeddings `[N, E]` of held-out tasks' support sets; see `evaluate`."""
    embed = tf.function(learner.embed, autograph=False, reduce_retracing=True)
    batches = (episodes for episodes, _ in _held_out(learner, held_out).batches(batch_size))
    return np.concatenate([embed(*learner.as_inputs(episodes)[:2]) for episodes in batches])
