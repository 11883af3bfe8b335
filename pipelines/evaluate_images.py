"""Evaluates one cell of the classification table on the held-out tasks."""

import json
import tempfile

import numpy as np

from pipelines import cells, embedding_maps, scores
from pipelines import params as parameters

# Tasks of each mode whose embeddings are kept for the picture.
_EMBEDDED_PER_MODE = 100
# Queries of an example task for the picture, and the size of its images at most.
_EXAMPLE_QUERIES, _EXAMPLE_SIZE = 5, 42


def main() -> None:
    """Evaluates the cell that the command line names."""
    arguments = parameters.cell_arguments(__doc__, "classification")
    params = parameters.load()
    parameters.check_cell(params, arguments)

    cell = cells.of(params, arguments)
    cell.evaluation.parent.mkdir(parents=True, exist_ok=True)
    cell.metrics.parent.mkdir(parents=True, exist_ok=True)
    if cell.left_out:
        print(f"{cell.run_name} is left out: none of its modes has data.")
        np.savez(cell.evaluation)
        scores.save(cell.metrics)
        cell.metrics.write_text(json.dumps({"cell": cell.name, "left_out": True}) + "\n")
        return

    from mmaml_tf import evaluation
    from mmaml_tf.update_rules import rate_table

    cells.configure_tensorflow(params["threads"])
    settings = parameters.get(params, "classification.evaluation")
    learner = cell.trained_learner()
    held_out = cell.held_out(params, cell.schedule["tasks_per_mode"])
    report = evaluation.evaluate(learner, held_out, curve=settings["curve"])
    print(f"{cell.run_name}\n{report}", flush=True)

    measured = {
        "mode": report.mode,
        "modes": report.modes,
        "steps": report.steps,
        "curve": report.curve,
        **report.measures,
    }
    kept = {}
    if learner.encoder is not None:
        count = min(_EMBEDDED_PER_MODE, cell.schedule["tasks_per_mode"])
        embedded = cell.held_out(params, count)
        embeddings = evaluation.task_embeddings(learner, embedded)
        kept = embedding_maps.arrays("classification", embeddings, embedded.mode)
        kept |= _examples(cell.held_out(params, 1))
    np.savez(cell.evaluation, **measured, **kept)
    scores.save(cell.metrics, **measured, **kept)
    metrics = {
        "cell": cell.name,
        "seed": cell.seed,
        "iterations": cell.schedule["iterations"],
        "ways": held_out.tasks.config()["ways"],
        "inner_steps": report.steps,
        "skipped_updates": int(learner.guard.skipped),
        "held_out_digest": held_out.digest(),
        "overall": _estimates(report, None),
        "modes": {mode: _estimates(report, mode) for mode in report.modes},
    }
    if rates := rate_table(learner):
        metrics["learned_rates"] = rates
    cell.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
    _track(cell, learner, held_out, metrics)


def _examples(held_out):
    """Returns small images of a task of each mode; all have the ways that the fewest have."""
    tasks = [episodes for episodes, _ in held_out.batches(1)]
    ways = min(int(task.support_y.max()) + 1 for task in tasks)
    apart = -(-tasks[0].support_x.shape[2] // _EXAMPLE_SIZE)
    kept = {"support": [], "query": [], "labels": []}
    for task in tasks:
        # One support image of each class, in the order of the labels.
        order = np.unique(task.support_y[0], return_index=True)[1][:ways]
        kept["support"].append(task.support_x[0][order])
        kept["query"].append(task.query_x[0][:_EXAMPLE_QUERIES])
        kept["labels"].append(task.query_y[0][:_EXAMPLE_QUERIES])
    small = {
        name: np.round(255 * np.stack(kept[name])[..., ::apart, ::apart, :]).astype(np.uint8)
        for name in ("support", "query")
    }
    return {f"example_{k}": v for k, v in (small | {"labels": np.stack(kept["labels"])}).items()}


def _track(cell, learner, held_out, metrics):
    """Sends the metrics and the exported model to the cell's tracked run."""
    with tempfile.TemporaryDirectory() as folder, cell.tracker("evaluate") as tracker:
        tracker.log_summary(metrics)
        tracker.log_dataset("held-out tasks", held_out.digest(), held_out.tasks.config())
        learner.export(f"{folder}/model")
        task, _ = next(held_out.batches(1))
        query_x = task.query_x[:, :1]  # one is enough to tell the types and shapes
        example = {"support_x": task.support_x, "support_y": task.support_y, "query_x": query_x}
        probabilities = np.zeros([1, 1, cell.settings["ways"]], np.float32)
        tracker.log_model(f"{folder}/model", example=example, prediction=probabilities)
        if cell.history.exists():
            tracker.log_artifact(cell.history)


def _estimates(report, mode):
    """Returns accuracy and loss after each measured number of inner steps."""
    return {
        f"steps_{steps}": {
            measure: report.estimate(mode, steps, measure)._asdict() for measure in report.measures
        }
        for steps in report.curve
    }


if __name__ == "__main__":
    main()
