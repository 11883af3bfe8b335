"""Stage `train`: trains one cell of the regression table."""

import csv

from pipelines import params as parameters


def main() -> None:
    """Trains the cell that the command line names, resuming where an earlier run was cut off."""
    arguments = parameters.cell_arguments(__doc__)
    params = parameters.load()
    parameters.regression_cell(params, arguments.cell)
    parameters.regression_scale(params, arguments.scale)

    from mmaml_tf.checkpoint import Checkpoints
    from mmaml_tf.training import train
    from pipelines import regression
    from pipelines.progress import Progress

    regression.configure_tensorflow(params["threads"])
    cell = regression.cell(params, arguments.scale, arguments.cell, arguments.seed)
    learner = cell.learner()
    iterations = cell.schedule["iterations"]
    with Progress(cell.run_name, iterations) as progress, cell.tracker("train") as tracker:
        tracker.log_dataset("function tasks", cell.tasks().digest(), cell.tasks().config())

        def log(row):
            progress.update(row)
            tracker.log_metrics(row)

        history = train(
            learner,
            cell.tasks(),
            iterations=iterations,
            batch=cell.schedule["batch_per_mode"] * len(cell.modes),
            seed=cell.seed,
            log_every=cell.schedule["log_every"],
            checkpoints=Checkpoints(cell.checkpoints, cell.config),
            checkpoint_every=cell.schedule["checkpoint_every"],
            on_log=log,
        )
    cell.save_weights(learner)
    cell.history.parent.mkdir(parents=True, exist_ok=True)
    with open(cell.history, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[-1]))
        writer.writeheader()
        writer.writerows(history)


if __name__ == "__main__":
    main()
