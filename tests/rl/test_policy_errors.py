"""What learners of policies do about updates that are not finite, and what they refuse."""

import keras
import numpy as np
import policies
import pytest
import tensorflow as tf
from policies import GOALS, dataset

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.rl.adaptation import Parameters
from mmaml_tf.rl.fixed_horizon import NonFiniteActionsError
from mmaml_tf.training import train


@pytest.mark.parametrize("recipe", policies.RECIPES)
def test_policies_that_diverge_stop_training(recipe):
    learner = policies.ready(recipe, learning_rate=1e30)
    before = learner.trainable_variables[0].numpy()
    with pytest.raises(mm.NonFiniteError) as caught:
        learner.fit(dataset(), verbose=0)
    message = str(caught.value)
    for part in ("step 2 ", "task seed 5", ": loss;", "deg225, deg45"):
        assert part in message
    assert isinstance(caught.value.__context__, NonFiniteActionsError)
    np.testing.assert_array_equal(learner.trainable_variables[0], before)
    assert learner.optimizer.iterations == 0


def test_only_the_modes_that_diverge_are_named():
    learner = policies.ready("MultiProMP")
    learner.networks[1].log_std.assign([0.0, 1e4])
    with pytest.raises(mm.NonFiniteError, match=r"mode: deg45\."):
        learner.fit(dataset(), verbose=0)


def test_skipped_policies_are_counted_until_there_are_more_than_ten_in_a_row():
    learner = policies.ready("ProMP", learning_rate=1e30, on_nonfinite="skip")
    learner.fit(dataset(10), verbose=0)
    assert int(learner.guard.skipped) == 10
    with pytest.raises(mm.NonFiniteError, match="11 updates in a row"):
        learner.fit(dataset(), verbose=0)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_loss_that_is_not_finite_is_noticed_in_the_epoch_where_it_arises(policy):
    """The first epoch's step is so long that the loss of the second overflows."""
    learner = policies.ready("MultimodalProMP", rate=1e20, epochs=3, on_nonfinite=policy)
    if policy == "stop":
        with pytest.raises(mm.NonFiniteError, match=r"step 2 \(task seed 5\): loss"):
            learner.fit(dataset(), verbose=0)
    else:
        history = learner.fit(dataset(), verbose=0).history
        assert int(learner.guard.skipped) == 2
        assert np.isfinite(history["loss"]).all()
    assert learner.optimizer.iterations == 1


# -- what is refused -------------------------------------------------------------------------


def make(**kwargs):
    return policies.learner("ProMP", **kwargs)


def build(network):
    make(network=network).build([(None, None, None, 3), (None, None, None, 2)])


def regularised():
    policy = policies.policy()
    policy.build((None, 3))
    policy.dense[0].kernel.regularizer = keras.regularizers.L2(0.1)
    return policy


class WithLoss(rl.GaussianPolicy):
    """A policy that adds a loss, which no objective has."""

    def functional_call(self, weights, x, modulation=None):
        """Returns means."""
        self.add_loss(tf.reduce_mean(x))
        return super().functional_call(weights, x, modulation)


class WithoutDistribution(rl.GaussianPolicy):
    """A policy whose distribution is none."""

    def distribution(self, weights, x, modulation=None):
        """Returns means."""
        return self.functional_call(weights, x, modulation)


BAD_SETTINGS = [
    (lambda: make(clip=0.0), "clip=0.0"),
    (lambda: make(kl_penalty=-1.0), "kl_penalty=-1.0"),
    (lambda: make(epochs=0), "epochs=0"),
    (lambda: make(epochs=2.5), "epochs=2.5"),
    (lambda: make(discount=1.1), "discount=1.1: expected a number from 0 to 1"),
    (lambda: make(gae_lambda=-0.1), "gae_lambda=-0.1"),
    (lambda: make(outer_clip=0.0), "outer_clip=0.0"),
    (lambda: make(steps=-1), "inner steps=-1"),
    (lambda: make(learning_rate=0.0), "inner learning_rate=0.0"),
    (lambda: make(network=mm.networks.MLP((3,), 2)), "MLP, which gives no distribution"),
    (lambda: make(kl_penalty=np.inf), "kl_penalty=inf"),
    (lambda: make(epochs=True), "epochs=True"),
    (lambda: make(discount="1"), "discount='1'"),
    (lambda: build(policies.policy(dtype="float64")), "computes in float64 and the learner in"),
    (lambda: build(regularised()), "have regularisers, but the network adds no losses"),
    (lambda: build(WithLoss(2, (3,))), "a policy has no regularisers, losses of its own"),
    (lambda: build(WithoutDistribution(2, (3,))), "WithoutDistribution.distribution gives"),
    (lambda: make(encoder=rl.TrajectoryEncoder()), "ProMP has no encoder"),
    (
        lambda: rl.MultimodalProMP(
            policies.policy(), encoder=None, modulation="film", inner_loop=mm.InnerLoop(1)
        ),
        "needs an encoder and a modulation",
    ),
    (
        lambda: rl.PolicyLearner(
            policies.policy(), inner_loop=mm.InnerLoop(1), encoder=rl.TrajectoryEncoder()
        ),
        "both an encoder and a modulation",
    ),
    (
        lambda: rl.MultiProMP(
            [policies.policy()], inner_loop=mm.InnerLoop(1), modes=policies.MODES
        ),
        "1 networks for 2 modes",
    ),
    (lambda: make().compile(steps_per_execution=3), "steps_per_execution=3"),
    (
        lambda: policies.learner(modulation=mm.modulation.FiLM(blocks=[2])).build([(3,), (2,)]),
        "modulation block 2 does not exist",
    ),
    (lambda: make().build([(None, None, None, 3), (None, None, None, 5)]), "takes 5; they must"),
]


@pytest.mark.parametrize(("call", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_environment_with_other_actions_is_refused():
    learner = make(network=rl.GaussianPolicy(5, (3,)))
    rollouts = policies.Rollouts("Bandit-v0", 2)
    learner.compile(rollouts=rollouts, jit_compile=False)
    with pytest.raises(ValueError, match="actions of size 5, the environment takes 2"):
        learner.fit(dataset(), verbose=0)


def test_a_learner_without_environment_or_weights_is_refused():
    for learner in (make(), policies.built("ProMP")):
        learner.compile(jit_compile=False)
        with pytest.raises(ValueError, match="no environment to act in"):
            learner.fit(dataset(), verbose=0)
        with pytest.raises(ValueError, match="no environment to act in"):
            mm.evaluate(learner, policies.TASKS, tasks_per_mode=2)
    with pytest.raises(ValueError, match="not compiled"):
        make().fit(dataset(), verbose=0)
    for call in (
        lambda: make().adapt(policies.trajectories()),
        lambda: make().initial_parameters(3),
    ):
        with pytest.raises(ValueError, match="no weights yet"):
            call()
    with pytest.raises(ValueError, match="has no encoder"):
        policies.built("ProMP").embed(policies.trajectories())


@pytest.fixture(scope="module")
def promp():
    return policies.ready("ProMP")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": np.zeros((3, 4, 5, 7))}, r"observations has shape \(3, 4, 5, 7\)"),
        ({"actions": np.zeros((3, 4, 5))}, r"actions has shape \(3, 4, 5\); .* L, 2\]"),
        ({"mask": np.ones((3, 4, 6))}, r"mask has shape \(3, 4, 6\)"),
        ({"mask": np.ones((3, 3, 5))}, r"as in rewards \(3, 4, 5\)"),
        ({"observations": np.zeros((2, 4, 5, 3))}, r"observations has shape \(2, 4, 5, 3\)"),
        ({"rewards": np.zeros((4, 5))}, r"rewards has shape \(4, 5\)"),
    ],
)
def test_trajectories_that_do_not_fit_are_refused(promp, change, message):
    with pytest.raises(ValueError, match=message):
        promp.adapt(policies.trajectories()._replace(**change))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("observations", np.inf, "observations of task 1, rollout 2, step 4 is inf; expected fini"),
        ("actions", np.nan, "actions of task 1, rollout 2, step 4 is nan"),
        ("rewards", np.nan, "rewards of task 1, rollout 2, step 4 is nan"),
        ("mask", 0.5, "mask of task 1, rollout 2, step 4 is 0.5; expected 0 or 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(promp, name, value, message):
    trajectories = policies.trajectories()
    part = getattr(trajectories, name).numpy()
    part[1, 2, 4] = value
    with pytest.raises(ValueError, match=message):
        promp.adapt(trajectories._replace(**{name: part}))


def test_goals_of_one_s_own_get_other_rollouts_after_a_skipped_update():
    learner = policies.ready("ProMP", learning_rate=1e30, on_nonfinite="skip")
    seen, collect = [], learner.rollouts.collect

    def spy(*arguments):
        seen.append(arguments[-1][:-1])
        return collect(*arguments)

    learner.rollouts.collect = spy
    learner.fit(dataset(3, origin=None), verbose=0)
    assert list(dict.fromkeys(seen)) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"curve": 2}, "curve, which has no meaning for a ProMP"),
        ({"tasks": mm.tasks.FunctionTasks()}, "tasks is a FunctionTasks; expected GoalTasks"),
        ({"tasks": policies.TASKS.held_out(1, 0), "seed": 3}, "'seed': 3.* drawn already"),
        ({"tasks_per_mode": 0}, "tasks_per_mode=0"),
        ({"examples_per_mode": -1}, "examples_per_mode=-1"),
        ({"learner": make()}, "no environment to act in"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(asked, message):
    settings = {"learner": policies.learner("ProMP"), "tasks": policies.TASKS} | asked
    with pytest.raises(ValueError, match=message):
        mm.evaluate(**settings)


def test_goals_of_another_environment_are_refused():
    learner = policies.learner("ProMP")
    learner.compile(rollouts=policies.Rollouts("mmaml_tf/Ant-v0", 2), jit_compile=False)
    with pytest.raises(ValueError, match=r"acts in mmaml_tf/Ant-v0, .* of mmaml_tf/Reacher-v0"):
        mm.evaluate(learner, rl.GoalTasks("reacher", 2), tasks_per_mode=2)
    with pytest.raises(ValueError, match=r"acts in mmaml_tf/Ant-v0, .* of mmaml_tf/Reacher-v0"):
        train(learner, rl.GoalTasks("reacher", 2), iterations=1, log_every=1, batch_size=2, seed=0)


def test_goals_of_other_modes_are_not_trained_on():
    bank = policies.ready("MultiProMP")
    tasks = rl.GoalTasks("point_mass", policies.MODES[::-1])
    with pytest.raises(ValueError, match="must be the same, in the same order"):
        train(bank, tasks, iterations=1, log_every=1, batch_size=2, seed=0)


@pytest.mark.parametrize("mode", [[0, 0, 7, 7], None, [0.0, 0.0, 1.0, 1.0]])
def test_held_out_goals_of_modes_that_do_not_exist_are_refused(promp, mode):
    held_out = policies.TASKS.held_out(2, seed=0)
    mode = None if mode is None else np.array(mode)
    changed = held_out._replace(goals=held_out.goals._replace(mode=mode))
    with pytest.raises(ValueError, match="modes of held-out goals are"):
        mm.evaluate(promp, changed)


def test_goals_of_modes_in_any_order_are_evaluated(promp):
    held_out = policies.TASKS.held_out(2, seed=0)
    mode = np.int32([1, 0, 1, 0])
    changed = held_out._replace(goals=held_out.goals._replace(mode=mode))
    kept = mm.evaluate(promp, changed, examples_per_mode=1).examples
    np.testing.assert_array_equal(kept.mode, [1, 0])
    np.testing.assert_array_equal(kept.goals, held_out.goals.goal[:2])


def test_goals_without_an_origin_are_evaluated():
    learner = policies.ready("ProMP")
    held_out = rl.GoalTasks("point_mass", policies.MODES).held_out(2, seed=0)
    own = held_out._replace(goals=held_out.goals._replace(origin=None))
    found, again = (mm.evaluate(learner, own) for _ in range(2))
    assert np.isfinite(found.values()).all()
    np.testing.assert_array_equal(found.values(), again.values())


@pytest.mark.parametrize("modes", [2.0, True, np.float32(2)])
def test_modes_that_are_no_whole_number_are_refused(modes):
    with pytest.raises(ValueError, match="give a number of modes"):
        rl.GoalTasks("point_mass", modes)


def test_whole_numbers_may_be_those_of_numpy():
    assert len(rl.GoalTasks("point_mass", np.int64(2)).modes) == 2
    assert type(mm.InnerLoop(np.int64(2)).steps) is int


def test_no_trajectories_are_refused(promp):
    for axis in range(3):
        empty = [part.numpy().take([], axis=axis) for part in policies.trajectories()]
        with pytest.raises(ValueError, match="at least one of each"):
            promp.adapt(rl.Trajectories(*empty))


def test_parameters_of_other_tasks_are_refused(promp):
    given = policies.trajectories(tasks=3)
    parameters = promp.adapt(given)
    for count in (1, 2):
        fewer = Parameters([weight[:count] for weight in parameters.weights], None, 1)
        with pytest.raises(ValueError, match="of 3 tasks, the parameters of another number"):
            promp.adapt(given, fewer)


@pytest.mark.parametrize("steps", [-1, 1.5, True])
def test_bad_numbers_of_steps_are_refused(promp, steps):
    with pytest.raises(ValueError, match="inner steps="):
        next(promp.stages(GOALS, steps))


def test_goals_that_are_none_are_refused(promp):
    numbers = tf.data.Dataset.from_tensors(tf.zeros([2, 2]))
    with pytest.raises(ValueError, match=r"an element of x is .* expected mmaml_tf Goals\(goal"):
        promp.fit(numbers, verbose=0)
    with pytest.raises(ValueError, match=r"goal: found shape \(2,\)"):
        promp.fit(dataset(goal=tf.zeros([2])), verbose=0)
    with pytest.raises(ValueError, match=r"x is .* expected mmaml_tf Goals\(goal"):
        promp.fit(GOALS.goal, verbose=0)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (None, "no mode was given"),
        ([0, 2], r"mode is \[0, 2\]; expected indices in \('deg225', 'deg45'\)"),
        ([0], r"mode has shape \(1,\)"),
        ([0.0, 1.0], "one integer for each of the 2 tasks"),
    ],
)
def test_a_bank_is_to_know_the_mode_of_each_task(mode, message):
    bank = policies.built("MultiProMP")
    with pytest.raises(ValueError, match=message):
        bank.initial_parameters(2, mode)


def test_a_bank_is_evaluated_on_its_own_modes():
    bank = policies.ready("MultiProMP")
    for modes in (policies.MODES[::-1], 4):
        with pytest.raises(ValueError, match=r"modes are \('deg225', 'deg45'\), those of"):
            mm.evaluate(bank, rl.GoalTasks("point_mass", modes), tasks_per_mode=2)
