"""Trains one cell of a table."""

from pipelines import cells
from pipelines import params as parameters


def main() -> None:
    """Trains the cell that the command line names, resuming where an earlier run was cut off."""
    arguments = parameters.cell_arguments(__doc__)
    params = parameters.load()
    parameters.check_cell(params, arguments)

    cell = cells.of(params, arguments)
    if cell.left_out:
        print(f"{cell.run_name} is left out: none of its modes has data.")
        cell.save([], [])
        return

    from mmaml_tf.checkpoint import Checkpoints
    from mmaml_tf.training import train
    from pipelines.progress import Progress

    cells.configure_tensorflow(params["threads"])
    cell.check_evaluation(params)
    tasks, learner = cell.tasks(), cell.learner()
    iterations = cell.schedule["iterations"]
    with Progress(cell.run_name, iterations) as progress, cell.tracker("train") as tracker:
        tracker.log_dataset("training tasks", tasks.digest(), tasks.config())

        def log(row):
            progress.update(row)
            tracker.log_metrics(row)

        history = train(
            learner,
            tasks,
            iterations=iterations,
            batch_size=cell.batch,
            seed=cell.seed,
            log_every=cell.schedule["log_every"],
            checkpoints=Checkpoints(cell.checkpoints, cell.config),
            checkpoint_every=cell.schedule["checkpoint_every"],
            on_log=log,
            validation=cell.validation(),
        )
    cell.save(learner.get_weights(), history)


if __name__ == "__main__":
    main()
