import numpy as np
import pytest

import mmaml_tf as mm
from mmaml_tf.tasks import bayes


def grid_posterior(episodes, noise, formula, parameters):
    """Evidence and posterior mean by summation over a grid of the two parameters."""
    a, b = (grid.ravel()[:, None] for grid in np.meshgrid(*parameters, indexing="ij"))
    evidence, means = [], []
    for x, y, q in zip(*(np.asarray(e)[..., 0] for e in episodes[:2] + episodes[2:3]), strict=True):
        errors = (formula(a, b, x[None]) - y) / noise
        likelihood = np.exp(-0.5 * np.sum(errors**2, axis=1))
        evidence.append(likelihood.mean())
        means.append(likelihood @ formula(a, b, q[None]) / max(likelihood.sum(), 1e-300))
    return np.array(evidence), np.array(means)


def midpoints(low, high, n):
    return low + (high - low) * (np.arange(n) + 0.5) / n


def test_posterior_means_and_mixture_equal_a_grid_integration():
    tasks = mm.tasks.FunctionTasks(("sinusoid", "linear"), noise=0.5)
    held_out = tasks.held_out(6, seed=1)
    posterior = bayes.posterior(tasks, held_out, particles=200_000, seed=2)
    grids = (
        (lambda a, p, x: a * np.sin(x - p), (midpoints(0.1, 5, 250), midpoints(0, np.pi, 250))),
        (lambda s, b, x: s * x + b, (midpoints(-3, 3, 400), midpoints(-3, 3, 250))),
    )
    evidence, means = zip(
        *(grid_posterior(held_out.episodes, 0.5, *grid) for grid in grids), strict=True
    )
    for family in range(2):
        # A family that cannot explain a task has too small an evidence to compare.
        likely = evidence[family] > 1e-9
        assert likely.sum() >= 6
        np.testing.assert_allclose(
            posterior.log_evidence[family][likely], np.log(evidence[family][likely]), atol=0.15
        )
        np.testing.assert_allclose(posterior.mean[family][likely], means[family][likely], atol=0.06)
    weights = np.array(evidence) / np.sum(evidence, axis=0)
    expected = np.einsum("fn,fnq->nq", weights, np.array(means))
    predicted, effective = posterior.predict(("sinusoid", "linear"))
    np.testing.assert_allclose(predicted, expected, atol=0.08)
    assert (effective > 50).all()


def test_nobody_predicts_better_than_the_bayes_optimal_predictor():
    """Its error stays below that of the mode's own regression, and above the noise floor."""
    tasks = mm.tasks.FunctionTasks(("linear",), noise=0.3)
    held_out = tasks.held_out(400, seed=1)
    predicted, _ = bayes.posterior(tasks, held_out, 20_000, seed=2).predict(("linear",))
    x, y, q = (np.asarray(a)[..., 0] for a in held_out.episodes[:3])
    design = np.stack([x, np.ones_like(x)], axis=-1)
    fit = np.linalg.pinv(design) @ y[..., None]
    least_squares = (np.stack([q, np.ones_like(q)], axis=-1) @ fit)[..., 0]
    truth = held_out.targets["noise_free"][..., 0]
    errors = [np.mean((p - truth) ** 2, axis=1) for p in (predicted, least_squares)]
    assert errors[0].mean() < errors[1].mean()
    noisy = held_out.targets["noisy"][..., 0]
    assert np.mean((predicted - noisy) ** 2) > 0.08


def test_chunks_do_not_change_the_result(monkeypatch):
    tasks = mm.tasks.FunctionTasks(("linear",))
    held_out = tasks.held_out(7, seed=1)
    whole = bayes.posterior(tasks, held_out, 500, seed=2)
    monkeypatch.setattr(bayes, "_CHUNK_VALUES", 500 * 10 * 3)
    parts = bayes.posterior(tasks, held_out, 500, seed=2)
    for a, b in zip(whole[:3], parts[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_without_noise_there_is_no_likelihood():
    tasks = mm.tasks.FunctionTasks(noise=0.0)
    with pytest.raises(ValueError, match="degenerate"):
        bayes.posterior(tasks, tasks.held_out(1, 0), 10, 0)
