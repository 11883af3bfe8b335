"""Returns, baseline and advantages against loops over tasks, rollouts and steps."""

import numpy as np
import policies
import pytest
import tensorflow as tf

from mmaml_tf.rl import Trajectories, advantages

T, R, L = 2, 3, 6


@pytest.fixture
def rewards():
    return np.random.default_rng(1).normal(size=(T, R, L))


@pytest.fixture
def values():
    return np.random.default_rng(2).normal(size=(T, R, L))


@pytest.fixture
def mask():
    """Rollouts that end early, one of them before its first step."""
    made = np.ones((T, R, L))
    made[0, 1, 4:] = made[1, 0, 1:] = made[1, 2] = 0
    return made


def rollouts(*arrays):
    """Yields the indices of each rollout, and its part of each array."""
    for index in np.ndindex(T, R):
        yield index, *(array[index] for array in arrays)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_discounted_sums(rewards, discount):
    expected = np.empty_like(rewards)
    for index, given in rollouts(rewards):
        later = 0.0
        for t in reversed(range(L)):
            later = expected[(*index, t)] = given[t] + discount * later
    found = advantages.discounted_sums(tf.constant(rewards), discount)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_sums_of_an_unknown_number_of_steps(rewards):
    spec = tf.TensorSpec([None, None, None], tf.float64)
    graph = tf.function(lambda x: advantages.discounted_sums(x, 0.9), input_signature=[spec])
    for part in (rewards, rewards[..., :4]):
        expected = advantages.discounted_sums(tf.constant(part), 0.9)
        np.testing.assert_allclose(graph(part), expected, rtol=1e-12)


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.9, 0.8), (0.99, 1.0), (0.5, 0.0)])
def test_generalised_advantages(rewards, values, mask, discount, gae_lambda):
    expected = np.zeros_like(rewards)
    for index, r, v, counts in rollouts(rewards, values, mask):
        length = int(counts.sum())
        for t in range(length):
            for k in range(t, length):
                following = v[k + 1] if k + 1 < length else 0.0
                residual = r[k] + discount * following - v[k]
                expected[(*index, t)] += (discount * gae_lambda) ** (k - t) * residual
    found = advantages.generalised_advantages(
        *map(tf.constant, (rewards, values, mask)), discount, gae_lambda
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_with_lambda_one_an_advantage_is_the_return_less_the_value(rewards, values):
    returns = advantages.discounted_sums(tf.constant(rewards), 0.9)
    found = advantages.generalised_advantages(
        tf.constant(rewards), tf.constant(values), tf.ones_like(returns), 0.9, 1.0
    )
    np.testing.assert_allclose(found, returns - values, rtol=1e-10, atol=1e-12)


def ridge_regression(features, targets, ridge):
    """Least squares of an extended system, another way to the same minimum."""
    size = features.shape[1]
    extended = np.concatenate([features, np.sqrt(ridge) * np.eye(size)])
    return np.linalg.lstsq(extended, np.concatenate([targets, np.zeros(size)]), rcond=None)[0]


@pytest.mark.parametrize("ridge", [1e-5, 0.3])
def test_linear_baseline(mask, ridge):
    rng = np.random.default_rng(3)
    observations = 8.0 * rng.normal(size=(T, R, L, 2))
    assert (np.abs(observations) > 10).any()
    returns = 5.0 + rng.normal(size=(T, R, L))
    expected = np.empty_like(returns)
    for task in range(T):
        features, targets, counts = [], [], []
        for r in range(R):
            for t in range(L):
                x = np.clip(observations[task, r, t], -10, 10)
                time = t / 100
                features.append([*x, *x**2, time, time**2, time**3, 1.0])
                targets.append(returns[task, r, t])
                counts.append(mask[task, r, t] == 1)
        features, targets = np.array(features), np.array(targets)
        coefficients = ridge_regression(features[counts], targets[counts], ridge)
        expected[task] = (features @ coefficients).reshape(R, L)
    trajectories = Trajectories(*map(tf.constant, (observations, returns, returns, mask)))
    found = advantages.linear_baseline(trajectories, tf.constant(returns), ridge)
    # Those of masked steps are not used, and extrapolate wildly.
    np.testing.assert_allclose(found * mask, expected * mask, rtol=1e-6, atol=1e-6)


def test_the_baseline_explains_returns_that_its_features_determine():
    trajectories = policies.trajectories(steps=20, dtype=np.float64)
    x, time = trajectories.observations, np.arange(20) / 100
    returns = 3.0 - 2.0 * x[..., 0] + x[..., 2] ** 2 + 7.0 * time
    found = advantages.linear_baseline(trajectories, returns)
    np.testing.assert_allclose(found, returns, atol=1e-2)
    assert advantages.linear_baseline(trajectories, tf.cast(returns, "float32")).dtype == tf.float32


def test_advantages_are_normalised_over_the_steps_of_a_task_that_count(values, mask):
    values = 4.0 + 3.0 * values
    found = advantages.normalised(tf.constant(values), tf.constant(mask)).numpy()
    for task in range(T):
        counts = mask[task] == 1
        of_task = values[task][counts]
        expected = (of_task - of_task.mean()) / of_task.std()
        np.testing.assert_allclose(found[task][counts], expected, rtol=1e-6)
        np.testing.assert_array_equal(found[task][~counts], 0.0)


def test_advantages_that_do_not_differ_are_zero():
    ones = tf.ones([T, R, L])
    np.testing.assert_array_equal(advantages.normalised(3.0 * ones, ones), 0.0)


def test_the_mean_of_a_task_none_of_whose_steps_count_is_zero(values, mask):
    mask[0] = 0
    found = advantages.masked_mean(tf.constant(values), tf.constant(mask))
    expected = [0.0, values[1][mask[1] == 1].mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
