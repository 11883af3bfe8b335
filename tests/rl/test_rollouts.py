import concurrent.futures
import copy
import pathlib
import pickle
import re
import time

import drift
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import StepType

import mmaml_tf
from mmaml_tf.rl import GaussianPolicy
from mmaml_tf.rl.driver import BatchedEnvironment
from mmaml_tf.rl.fixed_horizon import FixedHorizonEnvs
from mmaml_tf.rl.rollouts import Rollouts

T, R, L = 3, 4, drift.HORIZON
RANGE = 1.0
GOALS = np.float32([[1.0, 2.0], [-3.0, 0.5], [0.0, -1.0]])
drift.register()


@pytest.fixture(scope="module")
def policy():
    made = GaussianPolicy(2, hidden=(5, 3), initial_std=0.7)
    made.build((None, 4))
    return made


@pytest.fixture(scope="module")
def rollouts():
    return make()


def make(**kwargs):
    return Rollouts("Drift-v0", rollouts=R, action_range=RANGE, **kwargs)


def shared(policy):
    return [tf.convert_to_tensor(v) for v in policy.trainable_variables]


def per_task(policy, seed=0):
    """Different weights for every task, and a modulation of the first hidden layer."""
    rng = np.random.default_rng(seed)
    weights = [v.numpy() + 0.3 * rng.normal(size=(T, *v.shape)) for v in policy.trainable_variables]
    scale = tf.constant(rng.normal(1.0, 0.5, (T, 5)), tf.float32)
    modulation = [mmaml_tf.modulation.Affine(scale), None]
    return [tf.constant(w, tf.float32) for w in weights], modulation


def numpy(trajectories):
    return [part.numpy() for part in trajectories]


def assert_identical(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def standard_noise(trajectories, policy, weights, modulation):
    """(action - mean) / standard deviation, with the policy written out in NumPy."""
    values = {v.path: np.float64(w) for v, w in zip(policy.variables, weights, strict=True)}
    log_std = values.pop(policy.log_std.path)[:, None]
    k0, b0, k1, b1, k2, b2 = (w if w.ndim == 3 else w[:, None] for w in values.values())
    x = np.float64(trajectories.observations).reshape(T, R * L, 4)
    hidden = np.tanh((x @ k0 + b0) * np.float64(modulation[0][0])[:, None])
    means = np.tanh(hidden @ k1 + b1) @ k2 + b2
    return (np.float64(trajectories.actions).reshape(means.shape) - means) / np.exp(log_std)


def test_observations_and_rewards_are_those_of_the_environment_stepped_by_hand(rollouts, policy):
    weights, modulation = per_task(policy)
    observations, actions, rewards, mask = numpy(
        rollouts.collect(policy, weights, modulation, GOALS, (0, 1))
    )
    assert observations.shape == (T, R, L, 4)
    assert actions.shape == (T, R, L, 2)
    assert rewards.shape == mask.shape == (T, R, L)
    # Some actions lie beyond the bounds and some within.
    assert 0.1 < (np.abs(actions) > RANGE).mean() < 0.9
    state = np.float64(observations[:, :, 0])
    for step in range(L):
        np.testing.assert_allclose(observations[:, :, step], state, rtol=1e-5, atol=1e-5)
        bounds = zip(drift.LOW, drift.HIGH, strict=True)
        action = [
            np.interp(actions[:, :, step, i], (-RANGE, RANGE), b) for i, b in enumerate(bounds)
        ]
        state, reward = drift.move(state, np.stack(action, axis=-1), GOALS[:, None])
        np.testing.assert_allclose(rewards[:, :, step], reward, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mask, 1.0)
    assert rollouts.unstable == 0


def test_actions_are_the_means_and_standard_noise_that_depends_on_the_seed_alone(rollouts, policy):
    noises = []
    for seed in (0, 1):
        weights, modulation = per_task(policy, seed)
        trajectories = rollouts.collect(policy, weights, modulation, GOALS, (5, 6))
        noises.append(standard_noise(trajectories, policy, weights, modulation))
    np.testing.assert_allclose(*noises, rtol=1e-4, atol=1e-4)
    noise = noises[0]
    assert len(np.unique(noise.round(4))) > 0.9 * noise.size  # no draw is used twice
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)


def test_a_seed_decides_every_bit(rollouts, policy):
    arguments = policy, *per_task(policy), GOALS
    first = numpy(rollouts.collect(*arguments, (0, -1, 2)))
    copies = [part.copy() for part in first]
    other = numpy(rollouts.collect(*arguments, (0, -1, 3)))
    assert_identical(first, copies)  # not written over
    assert_identical(first, numpy(rollouts.collect(*arguments, (0, -1, 2))))
    assert_identical(first, numpy(make().collect(*arguments, (0, -1, 2))))
    for a, b in zip(first[:3], other[:3], strict=True):
        assert (a != b).all()


def test_a_task_does_not_depend_on_the_weights_of_another(rollouts, policy):
    weights, modulation = per_task(policy)
    first = numpy(rollouts.collect(policy, weights, modulation, GOALS, (7,)))
    one = tf.constant([0.0, 1.0, 0.0])
    weights = [w + tf.reshape(one, [T] + [1] * (len(w.shape) - 1)) for w in weights]
    changed = numpy(rollouts.collect(policy, weights, modulation, GOALS, (7,)))
    for a, b in zip(first, changed, strict=True):
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])
    assert (first[1][1] != changed[1][1]).all()


def test_shared_weights_act_like_equal_weights_for_each_task(rollouts, policy):
    weights = shared(policy)
    tiled = [tf.tile(w[None], [T] + [1] * len(w.shape)) for w in weights]
    first, second = (
        numpy(rollouts.collect(policy, w, None, GOALS, (1,))) for w in (weights, tiled)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_mask_ends_with_the_step_at_which_an_environment_became_unstable(policy):
    faulty = make(fault="unstable", at=3)
    mask = numpy(faulty.collect(policy, shared(policy), None, GOALS, (0,)))[3]
    expected = np.ones((T * R, L))
    expected[1::4, 2:] = 0
    np.testing.assert_array_equal(mask.reshape(T * R, L), expected)
    assert faulty.unstable == 3


def test_graphs_and_environments_are_made_once(policy, monkeypatch):
    traced, made = [], []
    distribution, make_vec = policy.distribution, gymnasium.make_vec

    def counted_distribution(*args):
        traced.append(None)
        return distribution(*args)

    def counted_make_vec(*args, num_envs, **kwargs):
        made.append(num_envs)
        return make_vec(*args, num_envs=num_envs, **kwargs)

    monkeypatch.setattr(policy, "distribution", counted_distribution)
    monkeypatch.setattr(gymnasium, "make_vec", counted_make_vec)
    rollouts = make()
    assert (rollouts.horizon, made) == (L, [])
    for iteration in range(3):
        rollouts.collect(policy, shared(policy), None, GOALS, (iteration, 0))
        for step in (1, 2):
            rollouts.collect(policy, *per_task(policy, step), GOALS, (iteration, step))
    assert (len(traced), made) == (2, [T * R])
    assert rollouts.collect(policy, shared(policy), None, GOALS[:2], (0,)).mask.shape == (2, R, L)
    assert (rollouts.observation_size, rollouts.action_size) == (4, 2)
    assert made == [T * R, 2 * R]
    rollouts.close()
    assert rollouts.collect(policy, shared(policy), None, GOALS[:2], (0,)).mask.shape == (2, R, L)
    assert made == [T * R, 2 * R, 2 * R]


def test_no_other_module_imports_tf_agents():
    files = pathlib.Path(mmaml_tf.__file__).parent.rglob("*.py")
    importing = [f.name for f in files if re.search(r"(from|import) tf_agents", f.read_text())]
    assert importing == ["driver.py"]


def test_sizes_are_known_before_a_collection():
    rollouts = make()
    assert (rollouts.observation_size, rollouts.action_size, rollouts.unstable) == (4, 2, 0)


def test_steps_end_with_a_truncation():
    adapter = BatchedEnvironment(FixedHorizonEnvs(drift.DriftVectorEnv(2, L), L, RANGE))
    adapter.set_tasks(GOALS[:2], seed=0)
    steps = [adapter.reset(), *(adapter.step(np.zeros((2, 2), np.float32)) for _ in range(L))]
    kinds = [StepType.FIRST] + [StepType.MID] * (L - 1) + [StepType.LAST]
    np.testing.assert_array_equal([s.step_type for s in steps], np.stack([kinds] * 2, axis=1))
    np.testing.assert_array_equal([s.discount for s in steps], 1.0)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"vectorization_mode": "sync"},
        {"vectorization_mode": "async", "vector_kwargs": {"context": "spawn"}},
    ],
)
def test_collections_of_single_environments_pursue_the_goal_of_each_task(policy, kwargs):
    rollouts = Rollouts("Drift-v0", rollouts=1, action_range=RANGE, **kwargs)
    arguments = policy, shared(policy), None, GOALS, (3,)
    first = numpy(rollouts.collect(*arguments))
    observations, _, rewards, _ = first
    distances = np.abs(observations[:, :, 1:, :2] - GOALS[:, None, None]).sum(axis=-1)
    np.testing.assert_allclose(rewards[:, :, :-1], -distances, rtol=1e-5, atol=1e-5)
    assert len(np.unique(observations[:, :, 0])) == T * 4  # every start is another
    assert_identical(first, numpy(rollouts.collect(*arguments)))
    rollouts.close()


def test_an_environment_of_gymnasium_that_knows_no_goals_is_refused():
    rollouts = Rollouts("Pendulum-v1", rollouts=1)
    policy = GaussianPolicy(1, hidden=(3,))
    policy.build((None, 3))
    with pytest.raises(ValueError, match="does not tell that it took the goals"):
        rollouts.collect(policy, shared(policy), None, GOALS, (0,))


def test_a_horizon_may_be_a_number_of_numpy(policy):
    rollouts = make(max_episode_steps=np.int64(L))
    assert rollouts.collect(policy, shared(policy), None, GOALS, (0,)).mask.shape == (T, R, L)


def test_point_mass(policy):
    rollouts = Rollouts("mmaml_tf/PointMass-v0", rollouts=R)
    observations, _, rewards, mask = numpy(rollouts.collect(policy, *per_task(policy), GOALS, (0,)))
    assert mask.shape == (T, R, rollouts.horizon) == (T, R, 100)
    distances = np.linalg.norm(observations[:, :, 1:, :2] - GOALS[:, None, None], axis=-1)
    np.testing.assert_allclose(rewards[:, :, :-1], -distances, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"fault": "ignores goals"}, "does not tell that it took the goals"),
        ({"fault": "terminates"}, "step 4 .* 1 terminated and 0 truncated of 12"),
        ({"fault": "truncates"}, "step 4 .* 0 terminated and 1 truncated of 12"),
        ({"fault": "truncates", "at": L}, "step 6 .* 0 terminated and 11 truncated of 12"),
        ({"fault": "observation shape"}, r"observations of shape \(12, 3\)"),
        ({"fault": "reward shape"}, r"rewards of shape \(12, 1\)"),
        (
            {"fault": "reward"},
            "rewards are not finite at step 4, first those of environment 2 of 12",
        ),
        ({"fault": "observation"}, "observations are not finite at step 4, .* environment 2 of 12"),
        ({"fault": "observation", "at": L}, "observations are not finite at step 6"),
        ({"unheard_of": 1}, "12 environments Drift-v0 cannot be made with .*unheard_of"),
        ({"fault": "raises"}, "step 4 of .* failed, with goals of 2 .* RuntimeError: boom"),
        ({"fault": "unstable shape"}, r"infos\[\"unstable\"\] of .* has shape \(12, 1\)"),
        ({"fault": "words"}, "rewards of type <U32; expected numbers"),
        ({"action_space": gymnasium.spaces.Box(0, 5, (2,), np.int64)}, "a Box of floats"),
        ({"action_space": gymnasium.spaces.Discrete(2)}, "actions of .* expected a Box"),
        ({"action_space": gymnasium.spaces.Box(-1, np.inf, (2,))}, "expected finite bounds"),
        ({"action_space": gymnasium.spaces.Box(-1, 1, (2, 1))}, "expected a Box of one axis"),
        (
            {"action_space": gymnasium.spaces.Box(-1, 1, (3,))},
            r"gives actions of shape \(3, 4, 2\) .* expected \(3, 4, 3\)",
        ),
    ],
)
def test_environments_that_do_not_fit_are_refused(policy, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs).collect(policy, shared(policy), None, GOALS, (0,))


def test_actions_that_are_not_finite_are_refused_before_anything_is_stepped(policy):
    envs = drift.DriftVectorEnv(T * R, L)
    gymnasium.register("Diverged-v0", vector_entry_point=lambda **_: envs, max_episode_steps=L)
    rollouts = Rollouts("Diverged-v0", rollouts=R)
    weights, modulation = per_task(policy)
    kernel = weights[-2]
    weights[-2] = kernel * tf.constant([1.0, np.nan, 1.0])[:, None, None]
    with pytest.raises(ValueError, match=r"step 0 are not finite in 4 of 12 .* in environment 4"):
        rollouts.collect(policy, weights, modulation, GOALS, (0,))
    assert envs.steps == 0
    # And the next collection is as if nothing had happened.
    weights[-2] = kernel
    mask = rollouts.collect(policy, weights, modulation, GOALS, (0,)).mask
    np.testing.assert_array_equal(mask, np.ones((T, R, L)))


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (GOALS[0], r"goals: found shape \(2,\)"),
        (GOALS[:0], r"goals: found shape \(0, 2\)"),
        (GOALS * np.nan, "finite"),
        (GOALS[:, :1], r"shape \(12, 1\)"),
        (GOALS[:2], r"observations \(2, 4, 4\) .* one for each task"),
    ],
)
def test_goals_that_do_not_fit_are_refused(policy, goals, message):
    with pytest.raises(ValueError, match=message):
        make().collect(policy, *per_task(policy), goals, (0,))


def test_weights_of_one_task_are_not_stretched_to_all(rollouts, policy):
    weights, modulation = per_task(policy)
    one = [weight[:1] for weight in weights]
    of_one = tf.nest.map_structure(lambda part: None if part is None else part[:1], modulation)
    for given in ((one, modulation), (shared(policy), of_one)):
        with pytest.raises(ValueError, match=r"of \[1\] tasks, and not of 3"):
            rollouts.collect(policy, *given, GOALS, (0,))


def test_a_policy_for_other_observations_is_refused(rollouts):
    other = GaussianPolicy(2, hidden=(5, 3))
    other.build((None, 7))
    message = re.escape("cannot be applied to observations (3, 4, 4)")
    with pytest.raises(ValueError, match=message):
        rollouts.collect(other, shared(other), None, GOALS, (0,))


def test_collecting_inside_a_graph_is_refused(rollouts, policy):
    graph = tf.function(lambda: rollouts.collect(policy, shared(policy), None, GOALS, (0,)).mask)
    with pytest.raises(ValueError, match="call it outside"):
        graph()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_id": "Drift-v9"}, "unknown environment 'Drift-v9'"),
        ({"env_id": "nowhere/Drift-v0"}, "unknown environment 'nowhere/Drift-v0'"),
        ({"env_id": "Endless-v0"}, "horizon is None"),
        ({"max_episode_steps": 0}, "horizon is 0"),
        ({"rollouts": 0}, "rollouts=0"),
        ({"rollouts": 2.5}, "rollouts=2.5"),
        ({"rollouts": True}, "rollouts=True"),
        ({"action_range": "10"}, "action_range='10'"),
        ({"num_envs": 3}, "num_envs: the number of environments is"),
        ({"env_id": 5}, "env_id is a int; expected the id"),
        ({"action_range": 0.0}, "action_range=0.0"),
        ({"action_range": np.inf}, "action_range=inf"),
        ({"max_episode_steps": 2.0}, "horizon is 2.0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    gymnasium.registry.pop("Endless-v0", None)
    gymnasium.register("Endless-v0", vector_entry_point=drift.DriftVectorEnv)
    with pytest.raises(ValueError, match=message):
        Rollouts(**{"env_id": "Drift-v0", **arguments})


def test_actions_of_a_wrong_shape_are_refused():
    envs = FixedHorizonEnvs(drift.DriftVectorEnv(2, L), L, RANGE)
    envs.reset(GOALS[:2], seed=0)
    with pytest.raises(ValueError, match=r"actions have shape \(2, 3\); expected \(2, 2\)"):
        envs.step(np.zeros((2, 3), np.float32))


def test_seeds_of_other_lengths_are_other_seeds(rollouts, policy):
    made = [
        numpy(rollouts.collect(policy, shared(policy), None, GOALS, seed))
        for seed in ((0,), (0, 0), np.int64([0]))
    ]
    for a, b in zip(made[0][:2], made[1][:2], strict=True):
        assert (a != b).all()
    assert_identical(made[0], made[2])


@pytest.mark.parametrize("seed", [(), 0, "0", (0.5,), (0, True), (2**70,)])
def test_seeds_that_are_none_are_refused(rollouts, policy, seed):
    with pytest.raises(ValueError, match=r"seed=.*whole number"):
        rollouts.collect(policy, shared(policy), None, GOALS, seed)


def test_threads_take_turns(rollouts, policy, monkeypatch):
    """Some use the same environments, others make them anew for another number of tasks."""
    step = drift.DriftVectorEnv.step

    def slowly(self, actions):
        time.sleep(1e-3)  # here another thread would go on
        return step(self, actions)

    monkeypatch.setattr(drift.DriftVectorEnv, "step", slowly)
    weights = shared(policy)
    seeds = [(number, tasks) for tasks in (1, 3) for number in range(3)]

    def collect(seed):
        return numpy(rollouts.collect(policy, weights, None, GOALS[: seed[1]], seed))

    expected = [collect(seed) for seed in seeds]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for a, b in zip(expected, pool.map(collect, seeds), strict=True):
            assert_identical(a, b)


def test_copies_have_environments_of_their_own(rollouts, policy):
    arguments = policy, shared(policy), None, GOALS, (0, 4)
    expected = numpy(rollouts.collect(*arguments))
    for copied in (copy.deepcopy(rollouts), pickle.loads(pickle.dumps(rollouts))):
        assert copied._envs is None
        assert_identical(expected, numpy(copied.collect(*arguments)))


def test_environments_that_failed_are_made_anew(policy):
    faulty = make(fault="raises")
    for _ in range(2):
        with pytest.raises(ValueError, match="boom"):
            faulty.collect(policy, shared(policy), None, GOALS, (0,))
        assert faulty._envs is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda p: ("policy", []), "policy is a str; expected a mmaml_tf.rl.GaussianPolicy"),
        (lambda p: (p, shared(p)[:-1]), "weights: found 6, expected one for each .* 7 trainable"),
        (lambda p: (p, None), "weights: found NoneType"),
        (lambda p: (GaussianPolicy(2), []), "a policy that is not built has none"),
    ],
)
def test_policies_and_weights_that_are_none_are_refused(rollouts, policy, given, message):
    with pytest.raises(ValueError, match=message):
        rollouts.collect(*given(policy), None, GOALS, (0,))


def test_a_policy_that_was_frozen_since_acts_by_what_it_is_now(rollouts):
    """Two layers of equal shapes change places, and the graph must not be that of before."""
    policy = GaussianPolicy(2, hidden=(4, 4, 4))
    policy.build((None, 4))
    for bias in (layer.bias for layer in policy.dense):
        bias.assign(np.arange(bias.shape[0]))

    def mean_action():
        weights = [tf.fill(w.shape, 0.3) for w in shared(policy)]
        return rollouts.collect(policy, weights, None, GOALS, (0, 5)).actions.numpy()

    policy.dense[1].trainable = False
    before = mean_action()
    policy.dense[1].trainable, policy.dense[2].trainable = True, False
    assert not np.allclose(before, mean_action())
