"""Update rules and first-order phases in the inner loop of policies."""

import itertools

import factory
import keras
import numpy as np
import policies
import promp_in_numpy
import pytest
import tensorflow as tf
from policies import GOALS

from mmaml_tf import rl
from mmaml_tf.update_rules import UPDATE_RULES

RULES = [name for name in UPDATE_RULES if name != "gradient_descent"]
RATE = 0.3


def ready(recipe, rule, steps=2, **kwargs):
    """A learner whose learned rates all differ."""
    made = policies.ready(recipe, steps=steps, learning_rate=RATE, loop={"update": rule}, **kwargs)
    return varied(made)


def varied(made):
    rng = np.random.default_rng(0)
    for v in made.inner_loop.variables:
        v.assign(rng.uniform(0.1, 0.4, v.shape))
    return made


def flat(policy):
    return [array for layer in policy.layers for array in layer] + [policy.log_std]


def by_hand(rule, learner, step, gradients, memory):
    """What one step subtracts from each weight of one task, and the memory."""
    if rule in ("meta_sgd", "layer_step_rates"):
        rates = learner.inner_loop.update.rates
        rates = [r.numpy() for r in rates] if rule == "meta_sgd" else [*rates[:, min(step, 1)]]
        # As in the oracle, the standard deviations come last.
        index = [v is learner.network.log_std for v in learner.network.trainable_variables]
        rates.append(rates.pop(index.index(True)))
        return [a * g for a, g in zip(rates, gradients, strict=True)], memory
    if rule == "momentum":
        memory = [0.9 * v + g for v, g in zip(memory or [0] * 7, gradients, strict=True)]
        return [RATE * v for v in memory], memory
    means, squares = memory or ([0] * 7, [0] * 7)
    means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
    squares = [0.999 * v + 0.001 * g**2 for v, g in zip(squares, gradients, strict=True)]
    corrected = [v / (1 - 0.999 ** (step + 1)) for v in squares]
    moved = [
        RATE * m / (1 - 0.9 ** (step + 1)) / np.sqrt(v + 1e-14)
        for m, v in zip(means, corrected, strict=True)
    ]
    return moved, (means, squares)


@pytest.mark.parametrize("rule", RULES)
def test_policies_adapt_as_derived_by_hand(rule):
    """Three steps, one more than are trained, task by task."""
    learner = ready("ProMP", rule)
    stages = list(learner.stages(GOALS, steps=3))
    assert [stage.parameters.steps for stage in stages] == [0, 1, 2, 3]
    for task in range(4):
        memory = None
        for step, (stage, following) in enumerate(itertools.pairwise(stages)):
            own = promp_in_numpy.Policy.of(learner.network, stage.parameters.weights, task)
            steps = promp_in_numpy.Steps(*(np.float64(part[task]) for part in stage.experience))
            gradients = flat(promp_in_numpy.policy_gradient(own, steps))
            moved, memory = by_hand(rule, learner, step, gradients, memory)
            found = flat(
                promp_in_numpy.Policy.of(learner.network, following.parameters.weights, task)
            )
            for a, b, change in zip(found, flat(own), moved, strict=True):
                np.testing.assert_allclose(a, b - change, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_unrolled_steps_are_those_that_were_taken(float64, rule):
    """Hence no policy diverges from the one that acted; and the meta-gradient is exact."""
    learner = policies.built("ProMP", 2, RATE, loop={"update": rule}, clip=0.5, kl_penalty=0.7)
    varied(learner)
    parameters, experiences = learner.initial_parameters(3), []
    for step in range(4):
        given = policies.trajectories(seed=step, dtype=np.float64)
        experiences.append(learner.experience(given, parameters))
        parameters = learner.adapt(given, parameters)
    batch = [*[None] * 4, *(part for e in experiences for part in e), None]

    @tf.function(autograph=False)
    def compute():
        variables = [v.value for v in learner.trainable_variables]
        with tf.GradientTape() as tape:
            losses, divergences, _ = learner.outer_losses(batch, None)
            loss = tf.reduce_mean(losses)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        return loss, divergences, gradients

    _, divergences, gradients = compute()
    np.testing.assert_allclose(divergences, np.zeros(3), atol=1e-12)
    checked = [*range(2), *range(7, len(gradients))]  # two weights, and the rule's variables
    factory.assert_gradients(
        [learner.trainable_variables[i] for i in checked],
        [gradients[i] for i in checked],
        lambda: compute()[0].numpy(),
        rtol=1e-4,
    )


@pytest.mark.parametrize("rule", RULES)
def test_policies_train_with_every_rule(rule):
    learner = ready("MultimodalProMP", rule)
    before = learner.inner_loop.get_weights()
    history = learner.fit(policies.dataset(), verbose=0).history
    assert np.isfinite([history["loss"][0], history["return_after_2"][0]]).all()
    after = learner.inner_loop.get_weights()
    assert len(after) == {"meta_sgd": 7, "layer_step_rates": 1}.get(rule, 0)
    assert all((a != b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("rule", ["layer_step_rates", "momentum"])
def test_a_bank_of_policies_adapts_and_trains_like_its_members_apart(rule):
    bank = ready("MultiProMP", rule)
    alone = [
        policies.ready(
            "ProMP", steps=2, learning_rate=RATE, loop={"update": rule},
            network=policies.policy(seed),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    for rule_of_mode, member in zip(bank.inner_loop.rules, alone, strict=False):
        member.inner_loop.update.set_weights(rule_of_mode.get_weights())
    stages = list(bank.stages(GOALS))
    experiences = [part for stage in stages for part in stage.experience]
    bank.outer_step([*[None] * 4, *experiences, GOALS.mode], GOALS.mode, GOALS.origin)
    for mode, member in enumerate(alone):
        chosen = GOALS.mode.numpy() == mode
        parameters = None
        for before, after in itertools.pairwise(stages):
            given = rl.Trajectories(*(tf.boolean_mask(p, chosen) for p in before.trajectories))
            parameters = member.adapt(given, parameters)
            for a, b in zip(parameters.weights, after.parameters.weights, strict=True):
                np.testing.assert_allclose(a, b[chosen], rtol=1e-4, atol=1e-5)
        own = [tf.boolean_mask(part, chosen) for part in experiences]
        member.outer_step([*[None] * 4, *own, None], origin=GOALS.origin)
        found = bank.networks[mode].get_weights()
        if rule == "layer_step_rates":
            found += bank.inner_loop.rules[mode].get_weights()
        expected = member.network.get_weights() + member.inner_loop.get_weights()
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_policies_may_begin_with_first_order_gradients():
    """Each of the optimizer's steps counts, of which an iteration takes several."""
    settings = {"steps": 1, "outer_clip": None}
    learners = [
        policies.ready("ProMP", loop=loop, **settings)
        for loop in ({"first_order_until": 1}, {"first_order": True}, {})
    ]
    for learner in learners:
        learner.compile(keras.optimizers.SGD(0.1), learner.rollouts, jit_compile=False)
    weights = []
    for learner in learners:
        stages = list(learner.stages(GOALS))
        experiences = [part for stage in stages for part in stage.experience]
        batch = [*[None] * 4, *experiences, None]
        weights.append([])
        for _ in range(2):
            learner.outer_step(batch, origin=GOALS.origin)
            weights[-1].append([v.numpy() for v in learner.trainable_variables])
    annealed, first, second = weights
    for a, b in zip(annealed[0], first[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(annealed[1][0], first[1][0], atol=1e-7)
    assert not np.allclose(first[0][0], second[0][0], atol=1e-7)


def test_a_multi_step_loss_of_policies_is_refused():
    with pytest.raises(ValueError, match="multi_step_until=5: the objective of policies"):
        policies.learner("ProMP", 2, loop={"multi_step_until": 5})
