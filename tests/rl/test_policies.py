import keras
import numpy as np
import policies
import promp_in_numpy
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.rl import GaussianPolicy
from mmaml_tf.rl.policies import normal

T, N = 3, 5


@pytest.fixture
def policy(float64):
    made = policies.policy()
    made.build((None, policies.OBSERVATION))
    return made


def x(seed=0):
    return np.random.default_rng(seed).normal(size=(T, N, policies.OBSERVATION))


def per_task(policy, seed=1):
    rng = np.random.default_rng(seed)
    return [
        tf.constant(v.numpy() + 0.5 * rng.normal(size=(T, *v.shape)))
        for v in policy.trainable_variables
    ]


def test_each_task_has_its_own_distribution(policy):
    rng = np.random.default_rng(2)
    weights, scales = per_task(policy), [rng.normal(size=(T, width)) for width in policy.hidden]
    actions = rng.normal(size=(T, N, policies.ACTION))
    for modulated in (False, True):
        modulation = [mm.modulation.Affine(tf.constant(s)) for s in scales] if modulated else None
        found = policy.distribution(weights, tf.constant(x()), modulation)
        assert (found.batch_shape, found.event_shape) == ((T, N), (policies.ACTION,))
        assert found.log_prob(actions).shape == (T, N)
        for task in range(T):
            own = promp_in_numpy.Policy.of(policy, weights, task)
            means = own.means(x()[task], [s[task] for s in scales] if modulated else None)
            std = np.exp(own.log_std)
            np.testing.assert_allclose(found.mean()[task], means, rtol=1e-10)
            np.testing.assert_allclose(found.stddev()[task], np.tile(std, (N, 1)), rtol=1e-10)
            expected = promp_in_numpy.log_prob(actions[task], means, std)
            np.testing.assert_allclose(found.log_prob(actions)[task], expected, rtol=1e-10)


def test_shared_weights_act_alike_in_all_tasks(policy):
    shared = [tf.convert_to_tensor(v) for v in policy.trainable_variables]
    tiled = [tf.tile(w[None], [T] + [1] * len(w.shape)) for w in shared]
    a, b = (policy.distribution(w, tf.constant(x())) for w in (shared, tiled))
    np.testing.assert_allclose(a.mean(), b.mean(), rtol=1e-12)
    np.testing.assert_allclose(a.stddev(), b.stddev(), rtol=1e-12)
    np.testing.assert_allclose(a.mean(), policy(tf.constant(x())), rtol=1e-12)


def test_a_deviation_is_at_least_the_least_one():
    policy = GaussianPolicy(2, hidden=(3,), min_std=0.01)
    policy.build((None, 3))
    policy.log_std.assign([-20.0, np.log(0.02)])
    shared = [tf.convert_to_tensor(v) for v in policy.trainable_variables]
    np.testing.assert_allclose(policy.standard_deviations(shared), [0.01, 0.02], rtol=1e-5)


def test_it_starts_as_published():
    policy = GaussianPolicy(8)
    policy.build((None, 29))
    shapes = [tuple(layer.kernel.shape) for layer in policy.dense]
    assert shapes == [(29, 64), (64, 64), (64, 8)]
    assert policy.modulated_kernels[1] == (64, 64)
    for layer in policy.dense:
        bound = np.sqrt(6 / sum(layer.kernel.shape))
        assert 0.95 * bound < np.abs(layer.kernel).max() <= bound
        np.testing.assert_array_equal(layer.bias, 0.0)
    np.testing.assert_array_equal(policy.log_std, np.zeros(8))


def test_the_head_is_the_output_layer_and_the_deviations(policy):
    expected = [*policy.dense[-1].trainable_variables, policy.log_std]
    assert [id(v) for v in policy.head] == [id(v) for v in expected]
    assert len(expected) == 3


@pytest.mark.parametrize("bias_transformation", [0, 2])
def test_its_configuration_makes_the_same_policy(bias_transformation):
    policy = policies.policy(seed=3, min_std=1e-3, bias_transformation=bias_transformation)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(policy))
    assert again.get_config() == policy.get_config()
    for made in (policy, again):
        made.build((None, policies.OBSERVATION))
    assert len(policy.get_weights()) == 7 + (bias_transformation > 0)
    for a, b in zip(policy.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_seed_decides_the_weights():
    first, again, other = (policies.policy(seed=seed) for seed in (0, 0, 1))
    for made in (first, again, other):
        made.build((None, 3))
    np.testing.assert_array_equal(first.dense[0].kernel, again.dense[0].kernel)
    assert not np.allclose(first.dense[0].kernel, other.dense[0].kernel)


def test_deviations_of_tasks_are_those_of_all_their_steps():
    means, stds = tf.zeros([2, 3, 1]), tf.constant([[1.0], [4.0]])
    expected = [[[1.0]] * 3, [[4.0]] * 3]
    np.testing.assert_array_equal(normal(means, stds).stddev(), expected)


def test_a_frozen_deviation_stays_as_it_is(policy):
    policy.log_std.trainable = False
    weights = per_task(policy)
    expected = np.full((T, N, policies.ACTION), 1.5)
    found = policy.distribution(weights, x()).stddev()
    np.testing.assert_allclose(tf.broadcast_to(found, expected.shape), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial_std": 0.0}, "initial_std=0.0"),
        ({"initial_std": np.inf}, "initial_std=inf"),
        ({"initial_std": "1"}, "initial_std='1'"),
        ({"initial_std": 0.1, "min_std": 0.2}, "no less than the second"),
        ({"min_std": -1.0}, "expected a finite positive number"),
        ({"hidden": ()}, "expected at least one whole number"),
        ({"hidden": (4, 0)}, "hidden=0: expected a whole number of at least 1"),
        ({"hidden": (4, 2.5)}, "hidden=2.5"),
        ({"actions": 0}, "actions=0: expected a whole number of at least 1"),
        ({"actions": True}, "actions=True"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"bias_transformation": True}, "bias_transformation=True"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianPolicy(**{"actions": 2, **settings})
