"""Evaluation of policy learners on held-out goals."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmaml_tf.arguments import whole_number
from mmaml_tf.evaluation import check_ready, evaluation_of
from mmaml_tf.report import Report
from mmaml_tf.rl.goals import GoalTasks, HeldOutGoals
from mmaml_tf.rl.policy_learner import PolicyLearner
from mmaml_tf.rl.trajectories import Trajectories


class Examples(NamedTuple):
    """One rollout of some held-out tasks, before and after each inner step.

    Attributes:
        observations: `[C, n, L, O]`, of each task's first rollout that did not break, NaN where
            all did.
        goals: `[n, G]`.
        mode: `[n]` mode of each task.
    """

    observations: np.ndarray
    goals: np.ndarray
    mode: np.ndarray


@dataclass(frozen=True, eq=False)
class PolicyReport(Report):
    """The `Report` of a policy learner, whose measure is "return".

    That is each task's mean over its stable rollouts: one that became unstable is no sample, and a
    task without any other has NaN.

    Attributes:
        embeddings: `[N, E]` task embeddings, or None without an encoder.
        examples: `Examples` of the first tasks of each mode.
        unstable: rollouts in which the environment became unstable.
    """

    embeddings: np.ndarray | None = None
    examples: Examples | None = None
    unstable: int = 0


@evaluation_of.register
def evaluate_policy(
    learner: PolicyLearner,
    tasks: GoalTasks | HeldOutGoals,
    tasks_per_mode: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    rollouts: Any = None,
    examples_per_mode: int = 4,
) -> PolicyReport:
    """Evaluates a learner by its undiscounted returns on held-out goals.

    Args:
        learner: a `PolicyLearner`.
        tasks: a distribution of goals, or what its `held_out` returned.
        tasks_per_mode: goals that a distribution draws of each mode, by default 100.
        seed: seed of those goals, by default 7.
        steps: number of inner steps; by default the inner loop's own.
        rollouts: a `Rollouts`; by default the one given to `compile`.
        examples_per_mode: tasks of each mode of which one rollout is kept.

    Returns:
        A `PolicyReport`.

    Raises:
        ValueError: for a learner without environment or weights, or that is not compiled, goals
            of another environment of this package's, a negative number of steps, or a learner
            that chooses by mode and goals of other modes.
    """
    examples_per_mode = whole_number("examples_per_mode", examples_per_mode, 0)
    given = {"tasks_per_mode": tasks_per_mode, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(tasks, HeldOutGoals) and given:
        raise ValueError(
            f"{given}: held-out goals are drawn already, and all are taken; leave that out, or "
            "give the distribution of goals."
        )
    if not isinstance(tasks, GoalTasks | HeldOutGoals):
        raise ValueError(
            f"tasks is a {type(tasks).__name__}; expected GoalTasks, or what its held_out returned."
        )
    held_out = tasks if isinstance(tasks, HeldOutGoals) else tasks.held_out(**given)
    learner.check_modes(held_out.modes)
    learner.check_environment(held_out.env_id, rollouts)
    check_ready(learner)
    kept = _first_of_each_mode(held_out, examples_per_mode)
    returns, embeddings, observations, unstable, left = [], [], [], 0, kept
    for index, goals in enumerate(held_out.batches()):
        # Batches of one set share its origin; their rollouts are to differ.
        origin = [0, 0] if goals.origin is None else np.asarray(goals.origin)
        goals = goals._replace(origin=[*origin, index])
        if not learner.needs_mode:
            goals = goals._replace(mode=None)  # it may be one that the learner does not name
        stages = list(learner.stages(goals, steps, rollouts))
        trajectories = [stage.trajectories for stage in stages]
        returns.append([t.task_returns() for t in trajectories])
        unstable += sum(int(np.sum(~t.stable)) for t in trajectories)
        if learner.encoder is not None:
            embeddings.append(learner.embed(trajectories[0]).numpy())
        chosen, left = left[: len(goals.goal)], left[len(goals.goal) :]
        observations.append([_first_stable(t)[chosen] for t in trajectories])
    curve = tuple(range(len(stages)))
    return PolicyReport(
        {"return": np.concatenate(returns, axis=1)},
        held_out.mode,
        held_out.modes,
        curve[-1],
        curve,
        held_out.digest(),
        embeddings=np.concatenate(embeddings) if embeddings else None,
        examples=Examples(
            np.concatenate(observations, axis=1), held_out.goals.goal[kept], held_out.mode[kept]
        ),
        unstable=unstable,
    )


def _first_stable(trajectories: Trajectories) -> np.ndarray:
    """Returns the observations `[T, L, O]` of each task's first stable rollout, or NaN."""
    stable = trajectories.stable.numpy()
    first = stable.argmax(axis=1)[:, None, None, None]
    chosen = np.take_along_axis(trajectories.observations.numpy(), first, axis=1)[:, 0]
    return np.where(stable.any(axis=1)[:, None, None], chosen, np.float32(np.nan))


def _first_of_each_mode(held_out: HeldOutGoals, count: int) -> np.ndarray:
    """Returns `[N]`: which tasks are among the first of their mode."""
    mode, modes = np.asarray(held_out.mode), len(held_out.modes)
    whole = np.issubdtype(mode.dtype, np.integer)
    if (
        not whole
        or mode.shape != (len(held_out.goals.goal),)
        or not np.isin(mode, range(modes)).all()
    ):
        raise ValueError(
            f"the modes of held-out goals are {mode.tolist()}; expected for each of the "
            f"{len(held_out.goals.goal)} goals an index in {held_out.modes}."
        )
    kept = np.zeros(len(mode), bool)
    for index in range(modes):
        kept[np.flatnonzero(mode == index)[:count]] = True
    return kept
