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
    results = cells.results_directory("regression", scale)
    results.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(results / "bayes.npz", **_bayes_errors(held_out, posterior))
    summary = {
        "digest": held_out.digest(),
        "distribution": tasks.config(),
        "distribution_digest": tasks.digest(),
        "seed": evaluation["seed"],
        "tasks_per_mode": schedule["tasks_per_mode"],
        "bayes_particles_per_family": schedule["particles"],
    }
    (results / "held_out.json").write_text(json.dumps(summary, indent=2) + "\n")


def _bayes_errors(held_out, posterior):
    """Returns each task's Bayes-optimal errors when the tasks are of the first M modes, M >= 2.

    The arrays are `<M>_noisy`, `<M>_noise_free` and `<M>_effective`, the effective sample size,
    each `[N]` for the tasks of those modes in their order.
    """
    import numpy as np

    arrays = {}
    for size in range(2, len(held_out.modes) + 1):
        prediction, effective = posterior.predict(held_out.modes[:size])
        prediction = prediction[..., None].astype(np.float64)
        errors = {
            name: np.mean((target - prediction) ** 2, axis=(1, 2))
            for name, target in held_out.targets.items()
        }
        own = held_out.episodes.mode < size
        for name, values in (errors | {"effective": effective}).items():
            arrays[f"{size}_{name}"] = values[own].astype(np.float32)
    return arrays


if __name__ == "__main__":
    main()
