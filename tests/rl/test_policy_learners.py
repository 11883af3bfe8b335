"""Learners of policies: how they sample, adapt, train and are evaluated."""

import keras
import numpy as np
import policies
import promp_in_numpy
import pytest
import tensorflow as tf
from policies import GOALS, dataset

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.division import Division

RATE = 0.3


@pytest.fixture
def record(monkeypatch):
    """Returns a function that makes a learner's environment keep what it is asked and gives."""

    def of(learner):
        calls, collect = [], learner.rollouts.collect

        def recorded(policy, weights, modulation, goals, seed):
            trajectories = collect(policy, weights, modulation, goals, seed)
            calls.append((modulation, goals, seed, trajectories))
            return trajectories

        monkeypatch.setattr(learner.rollouts, "collect", recorded)
        return calls

    return of


def steps_of(stage, task):
    """One task's steps of a stage, in double precision."""
    return promp_in_numpy.Steps(*(np.float64(part[task]) for part in stage.experience))


def test_the_goals_are_of_both_modes():
    assert set(GOALS.mode.numpy()) == {0, 1}


@pytest.mark.parametrize("recipe", ["ProMP", "MultimodalProMP"])
def test_sampling_and_adapting_take_turns_as_published(record, recipe):
    learner = policies.ready(recipe, steps=2, learning_rate=RATE)
    calls = record(learner)
    stages = list(learner.stages(GOALS))
    assert [seed for *_, seed, _ in calls] == [(5, 2, 0), (5, 2, 1), (5, 2, 2)]
    assert [stage.parameters.steps for stage in stages] == [0, 1, 2]
    assert all(goals is calls[0][1] for _, goals, *_ in calls)
    first, *later = (modulation for modulation, *_ in calls)
    expected = learner.modulate(stages[0].trajectories)
    assert first is None
    assert (expected is None) == (recipe == "ProMP")
    for modulation in later:
        for found, wanted in zip(modulation or (), expected or (), strict=True):
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
            assert found[1] is None
            assert np.abs(found[0] - 1).max() > 1e-3
    for task in range(4):
        for number, stage in enumerate(stages):
            own = promp_in_numpy.Policy.of(learner.network, stage.parameters.weights, task)
            scales = [s[task].numpy() for s, _ in expected] if expected and number else None
            steps = steps_of(stage, task)
            np.testing.assert_allclose(
                steps.means, own.means(steps.observations, scales), rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(steps.stds, np.exp(own.log_std), rtol=1e-5)
            if number < 2:
                gradient = promp_in_numpy.policy_gradient(own, steps, scales)
                wanted = promp_in_numpy.step(own, gradient, RATE)
                following = stages[number + 1].parameters.weights
                found = promp_in_numpy.Policy.of(learner.network, following, task)
                for a, b in zip(_flat(found), _flat(wanted), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _flat(policy):
    return [array for layer in policy.layers for array in layer] + [policy.log_std]


def test_experience_is_what_a_task_did_and_its_normalised_advantages():
    learner = policies.built("ProMP", discount=0.9, gae_lambda=1.0)
    given = policies.trajectories(steps=20)
    parameters = learner.adapt(given)
    found = learner.experience(given, parameters)
    observations, actions, rewards, mask = (np.float64(part) for part in given)
    assert mask[0, 1].sum() == 10
    mask[0, 1] = 0  # a rollout that broke counts nowhere, or it would pay to break
    for task in range(3):
        returns, x, counts = np.zeros((4, 20)), [], mask[task].ravel() == 1
        for r, t in np.ndindex(4, 20):
            later = range(t, int(mask[task, r].sum()))
            returns[r, t] = sum(0.9 ** (k - t) * rewards[task, r, k] for k in later)
            o, time = observations[task, r, t], t / 100
            x.append([*o, *o**2, time, time**2, time**3, 1.0])
        x, y = np.array(x)[counts], returns.ravel()[counts]
        gram = x.T @ x + 1e-5 * np.eye(x.shape[1])
        advantage = y - x @ np.linalg.solve(gram, x.T @ y)
        advantage = (advantage - advantage.mean()) / advantage.std()
        np.testing.assert_allclose(found.advantages[task][counts], advantage, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(found.advantages[task][~counts], 0.0)
        np.testing.assert_array_equal(found.mask[task], mask[task].ravel())
        np.testing.assert_allclose(found.actions[task], actions[task].reshape(-1, 2), rtol=1e-6)


def test_a_bandit_is_approached_as_derived_by_hand():
    """A squared distance to a goal g, actions of mean 0 and deviation σ, and R large.

    With ε = a/σ the covariance of the reward with ε is 2σg and with ε² it is -2σ²; its variance
    is 4σ²|g|² + 4σ⁴, by whose root the advantages are divided.
    """
    learner = policies.ready("ProMP", rollouts=4000, horizon=1, learning_rate=RATE)
    output = learner.network.dense[-1]
    output.kernel.assign(tf.zeros_like(output.kernel))
    before, after = learner.stages(GOALS)
    adapted = dict(
        zip((id(v) for v in learner.trainable_variables), after.parameters.weights, strict=True)
    )
    goal, std = GOALS.goal.numpy(), 1.5
    deviation = 2 * std * np.sqrt((goal**2).sum(axis=1, keepdims=True) + std**2)
    np.testing.assert_allclose(
        adapted[id(output.bias)], RATE * 2 * goal / deviation, rtol=0.1, atol=0.02
    )
    shrunk = np.log(std) - RATE * 2 * std**2 / deviation
    np.testing.assert_allclose(adapted[id(learner.network.log_std)], shrunk + 0 * goal, atol=0.03)
    gained = (after.trajectories.returns() - before.trajectories.returns()).numpy()
    error = gained.std(axis=1) / np.sqrt(4000)
    assert (gained.mean(axis=1) > 3 * error).all()


def test_many_steps_solve_a_bandit():
    learner = policies.ready("ProMP", rollouts=40, horizon=1, learning_rate=0.1)
    *_, last = learner.stages(GOALS, steps=30)
    distance = np.sqrt(-last.trajectories.returns().numpy().mean(axis=1))
    assert (np.linalg.norm(GOALS.goal, axis=1) > 5).all()
    assert (distance < 3).all()


def test_adapting_by_hand_equals_the_stages():
    learner = policies.ready("MultimodalProMP", steps=2)
    stages = list(learner.stages(GOALS))
    parameters = learner.adapt([part.numpy() for part in stages[0].trajectories])
    parameters = learner.adapt(stages[1].trajectories, parameters)
    assert parameters.steps == 2
    for a, b in zip(parameters.weights, stages[2].parameters.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for (a, _), (b, _) in zip(parameters.modulation, stages[2].parameters.modulation, strict=True):
        np.testing.assert_array_equal(a, b)


def test_any_numbers_of_tasks_rollouts_and_steps_are_adapted_to():
    learner = policies.built("MultimodalProMP")
    for tasks, rollouts, steps in ((3, 4, 5), (2, 4, 7), (1, 2, 1), (5, 3, 3)):
        given = policies.trajectories(tasks, rollouts, steps)
        together = learner.adapt(given)
        assert [w.shape[0] for w in together.weights] == [tasks] * 7
        last = learner.adapt(rl.Trajectories(*(part[-1:] for part in given)))
        for a, b in zip(last.weights, together.weights, strict=True):
            np.testing.assert_allclose(a[0], b[-1], rtol=1e-4, atol=1e-6)


def test_only_the_head_is_adapted_if_asked_for():
    learner = policies.ready("MultimodalProMP", loop={"head_only": True})
    *_, last = learner.stages(GOALS)
    for variable, weight in zip(
        learner.network.trainable_variables, last.parameters.weights, strict=True
    ):
        if any(variable is v for v in learner.network.head):
            assert weight.shape == (4, *variable.shape)
            assert (weight != variable[None]).numpy().any()
        else:
            np.testing.assert_array_equal(weight, variable)


# -- one learner a mode -------------------------------------------------------------------------


def members(**kwargs):
    return [policies.ready("ProMP", network=policies.policy(seed), **kwargs) for seed in (0, 1)]


def rows(parts, chosen):
    return [None if part is None else tf.boolean_mask(part, chosen) for part in parts]


def assert_weights(found, expected):
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_bank_adapts_and_trains_like_its_members_apart():
    bank, alone = policies.ready("MultiProMP"), members()
    stages = list(bank.stages(GOALS))
    experiences = [part for stage in stages for part in stage.experience]
    bank.outer_step([*[None] * 4, *experiences, GOALS.mode], GOALS.mode, GOALS.origin)
    for mode, member in enumerate(alone):
        chosen = GOALS.mode.numpy() == mode
        adapted = member.adapt(rl.Trajectories(*rows(stages[0].trajectories, chosen)))
        for a, b in zip(adapted.weights, rows(stages[1].parameters.weights, chosen), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        batch = [*[None] * 4, *rows(experiences, chosen), None]
        member.outer_step(batch, origin=GOALS.origin)
        assert_weights(bank.networks[mode], member.network)


def test_members_that_act_in_another_way_are_refused():
    with pytest.raises(ValueError, match=r"\['min_std'\] differ"):
        networks = [policies.policy(0), policies.policy(1, min_std=0.5)]
        rl.MultiProMP(networks, inner_loop=mm.InnerLoop(1, 0.1), modes=policies.MODES)


def test_what_compile_finds_changed_decides():
    made, changed = policies.ready("ProMP"), policies.ready("ProMP", discount=0.1)
    given = policies.trajectories()
    before = made.experience(given, made.initial_parameters(3)).advantages
    made.discount = 0.1
    made.compile(rollouts=made.rollouts, jit_compile=False)
    found, expected = (
        learner.experience(given, learner.initial_parameters(3)).advantages
        for learner in (made, changed)
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(found, before)


def test_members_are_joined_with_their_settings():
    settings = {"discount": 0.5, "gae_lambda": 0.7, "clip": 0.2, "kl_penalty": 0.1, "epochs": 3}
    alone = members(on_nonfinite="skip", outer_clip=0.3, **settings)
    bank = rl.MultiProMP.from_learners(alone, policies.MODES)
    expected = alone[0].get_config()
    for name in (*settings, "on_nonfinite", "outer_clip"):
        assert bank.get_config()[name] == expected[name]
    given = policies.trajectories(tasks=2)
    adapted = bank.adapt(given, bank.initial_parameters(2, [1, 0]))
    for row, mode in enumerate([1, 0]):
        own = alone[mode].adapt(rl.Trajectories(*(part[row : row + 1] for part in given)))
        for a, b in zip(adapted.weights, own.weights, strict=True):
            np.testing.assert_allclose(a[row], b[0], rtol=1e-5, atol=1e-6)


# -- fit and evaluate -----------------------------------------------------------------------------


def mean_return(trajectories, chosen=slice(None)):
    """The mean over tasks of the mean over those rollouts that did not break."""
    rewards, mask = trajectories.rewards.numpy()[chosen], trajectories.mask.numpy()[chosen]
    of_tasks = [r[m.all(axis=-1)].sum(axis=-1).mean() for r, m in zip(rewards, mask, strict=True)]
    return np.mean(of_tasks)


def test_fit_reports_returns_by_step_and_by_mode(record):
    learner = policies.ready("MultimodalProMP", env_kwargs={"unstable_at": 2}, horizon=3)
    calls = record(learner)
    history = {k: v[0] for k, v in learner.fit(dataset(), verbose=0).history.items()}
    assert learner.optimizer.iterations == learner.epochs == 2
    before, after = (trajectories for *_, trajectories in calls)
    np.testing.assert_array_equal(before.mask[0, 0], [1, 0, 0])
    assert history.pop("unstable") == 2
    assert history.pop("return_after_0") == pytest.approx(mean_return(before), rel=1e-5)
    assert history.pop("return_after_1") == pytest.approx(mean_return(after), rel=1e-5)
    for index, mode in enumerate(policies.MODES):
        expected = mean_return(after, GOALS.mode.numpy() == index)
        assert history.pop(f"return_{mode}") == pytest.approx(expected, rel=1e-5)
    assert set(history) == {"loss", "kl"}
    assert history["kl"] > 0  # in the second of the two epochs


def test_what_was_not_measured_is_no_return_of_zero():
    learner = policies.ready("ProMP", learning_rate=1e30, on_nonfinite="skip")
    history = learner.fit(dataset(), verbose=0).history
    names = ("loss", "kl", "return_after_0", "return_deg45")
    assert np.isnan([history[name] for name in names]).all()
    learner = policies.ready("ProMP")
    history = learner.fit(dataset(mode=tf.zeros([4], tf.int32)), verbose=0).history
    assert history["return_deg225"] == history["return_after_1"]
    assert np.isnan(history["return_deg45"]).all()


@pytest.mark.parametrize("recipe", policies.RECIPES)
def test_keras_evaluates_without_training(record, recipe):
    learner = policies.ready(recipe)
    before, calls = learner.get_weights(), record(learner)
    found = learner.evaluate(dataset(), return_dict=True, verbose=0)
    names = {"return_after_0", "return_after_1", "unstable"}
    assert set(found) == names | {f"return_{mode}" for mode in policies.MODES}
    for step, (*_, trajectories) in enumerate(calls):
        assert found[f"return_after_{step}"] == pytest.approx(mean_return(trajectories), rel=1e-5)
    trained = len(learner.trainable_variables)
    for a, b in zip(before[:trained], learner.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)


def test_xla_and_eager_execution_train_alike(monkeypatch):
    monkeypatch.setattr("mmaml_tf.division._threads", lambda: 2)
    monkeypatch.setattr("mmaml_tf.rl.policy_learner._STEPS_AT_ONCE", 8)  # one task
    trained = []
    for chosen in ({"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}):
        learner = policies.ready("MultimodalProMP")
        learner.compile(keras.optimizers.SGD(0.1), learner.rollouts, **chosen)
        learner.fit(dataset(), verbose=0)
        assert learner._divide(4).groups == (2 if learner.xla else 1)
        trained.append(learner.trainable_variables)
    for expected, *others in zip(*trained, strict=True):
        for found in others:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("steps", "groups"), [(17, 3), (8, 6), (1, 6), (1000, 1)])
def test_a_core_works_on_few_steps_at_once(monkeypatch, steps, groups):
    learner = policies.ready("ProMP", rollouts=4, horizon=2)  # 8 steps a task
    monkeypatch.setattr("mmaml_tf.rl.policy_learner._STEPS_AT_ONCE", steps)
    learner.compile("sgd", learner.rollouts, jit_compile=True, shards=2)
    assert learner._divide(12) == Division(2, groups)
    learner.compile("sgd", learner.rollouts, jit_compile=True, shards=2, tasks_at_once=6)
    assert learner._divide(12) == Division(2, 1), "what was asked for"
    monkeypatch.setattr("mmaml_tf.division._CACHE_BYTES", 1)
    learner.compile("sgd", learner.rollouts, jit_compile=True, shards=2)
    assert learner._divide(12) == Division(2, 6), "large weights count as well"
    learner.compile("sgd", learner.rollouts, jit_compile=False)
    assert learner._divide(12) == Division()


@pytest.mark.parametrize("recipe", policies.RECIPES)
def test_evaluation_on_held_out_goals(record, recipe):
    learner = policies.ready(recipe, horizon=2)
    calls = record(learner)
    held_out = policies.TASKS.held_out(21, seed=7)
    result = mm.evaluate(learner, held_out, examples_per_mode=2)
    # 42 tasks are two batches, with different seeds.
    assert [len(goals) for _, goals, *_ in calls] == [40, 40, 2, 2]
    assert len({seed for *_, seed, _ in calls}) == 4
    found = result.measures["return"]
    assert found.shape == (2, 42)
    assert result.curve == (0, 1)
    for step in (0, 1):
        of_tasks = [c[3].returns().numpy().mean(axis=1) for c in calls[step::2]]
        np.testing.assert_allclose(found[step], np.concatenate(of_tasks), rtol=1e-5)
    number = [0, 1, 21, 22]
    np.testing.assert_array_equal(result.examples.goals, held_out.goals.goal[number])
    np.testing.assert_array_equal(result.examples.mode, [0, 0, 1, 1])
    for step in (0, 1):
        expected = calls[step][3].observations.numpy()[number, 0]
        np.testing.assert_array_equal(result.examples.observations[step], expected)
    if recipe == "MultimodalProMP":
        assert result.embeddings.shape == (42, 3)
        np.testing.assert_allclose(
            result.embeddings[:40], learner.embed(calls[0][3]), rtol=1e-5, atol=1e-6
        )
    else:
        assert result.embeddings is None
    again = mm.evaluate(learner, policies.TASKS, tasks_per_mode=21, seed=7)
    np.testing.assert_array_equal(again.measures["return"], found)
    assert "deg45" in str(again)


def test_unstable_rollouts_are_counted_once_a_stage():
    learner = policies.ready("ProMP", env_kwargs={"unstable_at": 1})
    assert mm.evaluate(learner, policies.TASKS, tasks_per_mode=2, steps=2).unstable == 3


@pytest.mark.parametrize("rollouts", [1, 4])
def test_an_unstable_rollout_is_no_sample(record, rollouts):
    faulty = {"unstable_at": 2}
    learner = policies.ready("ProMP", rollouts=rollouts, horizon=3, env_kwargs=faulty)
    calls = record(learner)
    report = mm.evaluate(learner, policies.TASKS, tasks_per_mode=2)
    first, *others = report.values()
    returns = calls[-1][3].returns().numpy()
    np.testing.assert_allclose(others, returns[1:].mean(axis=1), rtol=1e-5)
    if rollouts > 1:
        np.testing.assert_allclose(first, returns[0, 1:].mean(), rtol=1e-5)
        assert report.estimate().nonfinite == 0
    else:  # it had no other
        assert np.isnan(first) and np.isnan(report.estimate().mean)
        assert "1 of 4 not finite" in str(report)


def test_a_rollout_that_broke_is_no_sample_anywhere():
    trajectories = policies.trajectories()  # the second rollout of the first task broke
    rewards = trajectories.rewards.numpy()
    broken = np.arange(12).reshape(3, 4) == 1
    np.testing.assert_array_equal(~trajectories.stable.numpy(), broken)
    returns = trajectories.returns().numpy()
    np.testing.assert_array_equal(np.isnan(returns), broken)
    np.testing.assert_allclose(returns[~broken], rewards.sum(axis=-1)[~broken], rtol=1e-5)
    np.testing.assert_allclose(trajectories.task_returns(), np.nanmean(returns, axis=1), rtol=1e-5)
    lost = rl.Trajectories(*(part[:1, 1:2] for part in trajectories))
    assert np.isnan(lost.task_returns()).all()


def test_training_leaves_out_tasks_all_of_whose_rollouts_broke():
    learner = policies.ready("ProMP", rollouts=1, horizon=3, env_kwargs={"unstable_at": 2})
    history = {k: v[0] for k, v in learner.fit(dataset(), verbose=0).history.items()}
    assert history["unstable"] == 2  # that of the first task, before and after the inner step
    assert np.isfinite([history["return_after_0"], history["return_after_1"]]).all()
    first = np.flatnonzero(GOALS.mode == GOALS.mode[0])
    alone = GOALS._replace(goal=GOALS.goal.numpy()[first[:1]], mode=GOALS.mode.numpy()[first[:1]])
    measured = learner.evaluate(alone, verbose=0, return_dict=True)
    assert measured.pop("unstable") == 2
    assert np.isnan(list(measured.values())).all()


def test_the_rollouts_that_are_kept_are_stable_ones(record):
    faulty = {"unstable_at": 2}
    for rollouts in (1, 4):
        learner = policies.ready("ProMP", rollouts=rollouts, horizon=3, env_kwargs=faulty)
        calls = record(learner)
        kept = mm.evaluate(learner, policies.TASKS, 1).examples.observations
        second = calls[0][3].observations.numpy()[0, -1 if rollouts == 1 else 1]
        expected = second * np.nan if rollouts == 1 else second
        np.testing.assert_array_equal(kept[0, 0], expected)
        np.testing.assert_array_equal(kept[0, 1], calls[0][3].observations.numpy()[1, 0])


def test_goals_without_origin_get_other_rollouts_every_step(record):
    learner = policies.ready("ProMP")
    calls = record(learner)
    for _ in range(2):
        learner.train_step(GOALS._replace(origin=None))
    assert len({call[2] for call in calls}) == 4


def test_heads_start_as_parts_of_one_xavier_layer():
    modulation = mm.modulation.FiLM(
        shift=False, seed=0, kernel_initializer="glorot_uniform", bias_initializer="zeros"
    )
    modulation.build_for(64, [(7, 64), (64, 64)])
    bound = (6 / (64 + 128)) ** 0.5
    for head in modulation.heads.values():
        largest = np.abs(head.kernel.numpy()).max()
        assert 0.98 * bound < largest <= bound
        np.testing.assert_array_equal(head.bias, np.zeros(64))
