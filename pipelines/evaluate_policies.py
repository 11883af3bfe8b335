"""Evaluates one cell of the reinforcement-learning table on the held-out goals."""

import json
import tempfile

import numpy as np

from pipelines import params as parameters
from pipelines import scores

# Tasks of each mode of which one rollout is kept for pictures.
_EXAMPLES_PER_MODE = 4
# Frames of a rollout, and modes of which one is shown.
_FRAMES, _FRAMED_MODES = 5, 2


def main() -> None:
    """Evaluates the cell that the command line names."""
    arguments = parameters.cell_arguments(__doc__, "reinforcement")
    params = parameters.load()
    parameters.check_cell(params, arguments)

    import mmaml_tf as mm
    from mmaml_tf.update_rules import rate_table
    from pipelines import cells

    cells.configure_tensorflow(params["threads"])
    cell = cells.of(params, arguments)
    settings = parameters.get(params, "reinforcement.evaluation")
    learner = cell.trained_learner()
    held_out = cell.tasks().held_out(cell.schedule["tasks_per_mode"], settings["seed"])
    report = mm.evaluate(
        learner,
        held_out,
        rollouts=cell.rollouts(cell.schedule["evaluation_rollouts"]),
        examples_per_mode=_EXAMPLES_PER_MODE,
    )
    print(f"{cell.run_name}\n{report}", flush=True)

    cell.evaluation.parent.mkdir(parents=True, exist_ok=True)
    cell.metrics.parent.mkdir(parents=True, exist_ok=True)
    measured = {
        "mode": report.mode,
        "modes": report.modes,
        "steps": report.steps,
        "curve": report.curve,
        **report.measures,
        "examples_goals": report.examples.goals,
    }
    drawn = {
        "examples_observations": report.examples.observations,
        "examples_mode": report.examples.mode,
    }
    if report.embeddings is not None:
        drawn |= {"embeddings": report.embeddings, "embeddings_mode": held_out.mode}
    np.savez(cell.evaluation, **measured, **drawn)
    scores.save(cell.metrics, **measured, **_kept(cell, report, held_out))
    metrics = {
        "cell": cell.name,
        "seed": cell.seed,
        "iterations": cell.schedule["iterations"],
        "environment_steps": environment_steps(cell),
        "inner_steps": report.steps,
        "rollouts": cell.schedule["evaluation_rollouts"],
        "skipped_updates": int(learner.guard.skipped),
        "unstable_rollouts": report.unstable,
        "held_out_digest": held_out.digest(),
        "overall": _estimates(report, None),
        "modes": {mode: _estimates(report, mode) for mode in report.modes},
    }
    if rates := rate_table(learner):
        metrics["learned_rates"] = rates
    cell.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
    _track(cell, learner, held_out, metrics)


def _kept(cell, report, held_out):
    """Returns what the report draws: paths of a point, frames of a robot, and a map of tasks."""
    from pipelines import embedding_maps

    kept, observations = {}, report.examples.observations
    if cell.name.startswith("single-"):  # the report shows methods of several modes
        return kept
    if "point_mass" in cell.name:
        kept["example_positions"] = observations[..., :2]
    else:
        kept |= _frames(report.examples)
    if report.embeddings is not None:
        kept |= embedding_maps.arrays("reinforcement", report.embeddings, held_out.mode)
    return kept


def _frames(examples):
    """Returns a few observations of a rollout of two modes, before adaptation and at its end."""
    whole = np.isfinite(examples.observations).all(axis=(0, 2, 3))  # of every step
    tasks = [np.flatnonzero(whole & (examples.mode == mode))[:1] for mode in range(_FRAMED_MODES)]
    if not all(map(len, tasks)):
        return {}
    tasks = np.concatenate(tasks)
    times = np.linspace(0, examples.observations.shape[2] - 1, _FRAMES).round().astype(int)
    observations = examples.observations[[0, -1]][:, tasks][:, :, times]
    return {
        "frames_observations": observations.swapaxes(0, 1),
        "frames_goals": examples.goals[tasks],
        "frames_times": times,
    }


def environment_steps(cell) -> int:
    """Returns the environment steps of a cell's training."""
    horizon = cell.rollouts(1).horizon
    each = (cell.settings["inner_steps"] + 1) * cell.schedule["rollouts"] * horizon
    return cell.schedule["iterations"] * cell.batch * each


def _estimates(report, mode):
    """Returns the return before adaptation and after each inner step."""
    return {
        f"steps_{steps}": {"return": report.estimate(mode, steps)._asdict()}
        for steps in report.curve
    }


def _track(cell, learner, held_out, metrics):
    """Sends the metrics and the exported policy to the cell's tracked run."""
    with tempfile.TemporaryDirectory() as folder, cell.tracker("evaluate") as tracker:
        tracker.log_summary(metrics)
        tracker.log_dataset("held-out goals", held_out.digest(), cell.tasks().config())
        learner.export(f"{folder}/model")
        goals = next(held_out.batches(1))
        tracker.log_policy(f"{folder}/model", example=_example(cell, learner, goals))
        if cell.history.exists():
            tracker.log_artifact(cell.history)


def _example(cell, learner, goals):
    """Returns rollouts for every inner step of one task, and an observation to act on."""
    # A rollout is enough to tell the types and shapes.
    stages = learner.stages(goals, rollouts=cell.rollouts(1))
    sampled = [stage.trajectories for stage in stages]
    example = {
        name: np.stack([getattr(trajectories, name).numpy() for trajectories in sampled], 1)[:, :-1]
        for name in ("observations", "actions", "rewards")
    }
    return example | {"acting_on": sampled[-1].observations.numpy()[:, 0, :1]}


if __name__ == "__main__":
    main()
