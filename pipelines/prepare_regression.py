"""Stage `prepare`: the held-out tasks, their digest, and the Bayes-optimal errors on them."""

import argparse
import json

from pipelines import params as parameters


def main() -> None:
    """Draws and writes the held-out tasks and their posteriors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    scale = parser.parse_args().scale
    params = parameters.load()
    schedule = parameters.regression_scale(params, scale)
    evaluation = parameters.get(params, "regression.evaluation")

    import numpy as np

    from mmaml_tf.tasks import bayes
    from pipelines import cells, regression

    cells.configure_tensorflow(params["threads"])
    tasks = regression.function_tasks(
        evaluation["modes"], parameters.get(params, "regression.tasks")
    )
    held_out = tasks.held_out(schedule["tasks_per_mode"], evaluation["seed"])
    print(f"posteriors of {len(held_out.episodes.mode)} held-out tasks ...", flush=True)
    posterior = bayes.posterior(tasks, held_out, schedule["particles"], evaluation["seed"])

    path = regression.held_out_path(scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    held_out.save(path)
    np.savez(regression.bayes_path(scale), **posterior._asdict())
    summary = {
        "digest": held_out.digest(),
        "distribution": tasks.config(),
        "distribution_digest": tasks.digest(),
        "seed": evaluation["seed"],
        "tasks_per_mode": schedule["tasks_per_mode"],
        "bayes_particles_per_family": schedule["particles"],
    }
    path = cells.results_directory("regression", scale) / "held_out.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
