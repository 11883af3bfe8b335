"""Stage `evaluate`: one cell of the regression table on the held-out tasks."""

import json
import tempfile

from pipelines import embedding_maps, scores
from pipelines import params as parameters

# Curves of a few tasks per mode, drawn apart from the held-out tasks, for the pictures.
_EXAMPLES_PER_MODE = 3
_GRID_POINTS = 101


def main() -> None:
    """Evaluates the cell that the command line names."""
    arguments = parameters.cell_arguments(__doc__, "regression")
    params = parameters.load()
    parameters.check_cell(params, arguments)

    import numpy as np

    from mmaml_tf import evaluation
    from mmaml_tf.tasks.held_out import HeldOut
    from mmaml_tf.update_rules import rate_table
    from pipelines import cells, regression

    cells.configure_tensorflow(params["threads"])
    cell = cells.of(params, arguments)
    settings = parameters.get(params, "regression.evaluation")
    learner = cell.trained_learner()
    held_out = HeldOut.load(regression.held_out_path(cell.scale)).only(cell.modes)
    report = evaluation.evaluate(learner, held_out, curve=settings["curve"])
    print(f"{cell.run_name}\n{report}", flush=True)

    measured = {"mode": report.mode, "modes": report.modes, "steps": report.steps}
    measured |= {f"losses_{name}": losses for name, losses in report.measures.items()}
    arrays, kept = {}, _examples(learner, cell.tasks(), settings["seed"] + 1)
    if learner.encoder is not None:
        arrays["embeddings"] = evaluation.task_embeddings(learner, held_out)
        mode = held_out.episodes.mode
        kept |= embedding_maps.arrays("regression", arrays["embeddings"], mode)
    cell.evaluation.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cell.evaluation, **measured, **arrays, **kept)
    scores.save(cell.metrics, **measured, **kept)

    metrics = {
        "cell": cell.name,
        "seed": cell.seed,
        "iterations": cell.schedule["iterations"],
        "inner_steps": report.steps,
        "skipped_updates": int(learner.guard.skipped),
        "held_out_digest": held_out.digest(),
        "overall": _estimates(report, None),
        "modes": {mode: _estimates(report, mode) for mode in report.modes},
    }
    if rates := rate_table(learner):
        metrics["learned_rates"] = rates
    cell.metrics.parent.mkdir(parents=True, exist_ok=True)
    cell.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
    _track(cell, learner, held_out, metrics)


def _track(cell, learner, held_out, metrics):
    """Sends the metrics and the exported model to the cell's tracked run."""
    with tempfile.TemporaryDirectory() as folder, cell.tracker("evaluate") as tracker:
        tracker.log_summary(metrics)
        tracker.log_dataset("held-out tasks", held_out.digest(), cell.tasks().config())
        learner.export(f"{folder}/model")
        e = held_out.episodes
        inputs = {"support_x": e.support_x, "support_y": e.support_y, "query_x": e.query_x}
        if learner.needs_mode:
            inputs["mode"] = e.mode
        example = {name: array[:2] for name, array in inputs.items()}
        tracker.log_model(f"{folder}/model", example=example, prediction=e.query_y[:1])
        if cell.history.exists():
            tracker.log_artifact(cell.history)


def _estimates(report, mode):
    """Returns post-modulation and post-adaptation estimates for each kind of target."""
    return {
        target: {
            "post_modulation": report.estimate(mode, 0, target)._asdict(),
            "post_adaptation": report.estimate(mode, None, target)._asdict(),
        }
        for target in report.measures
    }


def _examples(learner, tasks, seed):
    """Returns a few tasks and the learner's curves after modulation and after each step."""
    import numpy as np

    from mmaml_tf.evaluation import predictions

    grid = np.linspace(*tasks.x_range, _GRID_POINTS, dtype=np.float32)
    episodes = tasks.examples(_EXAMPLES_PER_MODE, seed, grid)
    path = predictions(learner, episodes, learner.inner_loop.steps)
    return {
        "example_support_x": episodes.support_x,
        "example_support_y": episodes.support_y,
        "example_mode": episodes.mode,
        "example_x": grid,
        "example_truth": episodes.query_y[..., 0],
        "example_predictions": path[..., 0],
    }


if __name__ == "__main__":
    main()
