"""ProMP's objectives and their meta-gradient against NumPy and finite differences."""

import factory
import keras
import numpy as np
import policies
import promp_in_numpy
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.rl import promp

T, N = 2, 8


def random_steps(network, task, seed):
    """Steps of one task, taken by a policy near that of the network, some of them masked."""
    rng = np.random.default_rng([seed, task])
    observations = rng.normal(size=(N, policies.OBSERVATION))
    means = promp_in_numpy.Policy.of(network).means(observations)
    means = means + 0.2 * rng.normal(size=means.shape)
    stds = np.exp(network.log_std.numpy() + 0.1 * rng.normal(size=policies.ACTION))
    actions = means + stds * rng.normal(size=means.shape)
    mask = np.ones(N)
    mask[N - task - 1 :] = 0
    return promp_in_numpy.Steps(observations, actions, rng.normal(size=N), mask, means, stds)


def stages_of(network, steps):
    """For each task, its steps before and after each inner step."""
    return [[random_steps(network, t, seed) for seed in range(steps + 1)] for t in range(T)]


def experience(of_tasks):
    """Joins the steps of tasks."""
    return promp.Experience(*(tf.constant(np.stack(part)) for part in zip(*of_tasks, strict=True)))


@pytest.fixture
def network(float64):
    made = policies.policy()
    made.build((None, policies.OBSERVATION))
    return made


def tasks_weights(network, seed=4):
    """Different weights for every task."""
    rng = np.random.default_rng(seed)
    return [
        tf.constant(v.numpy() + 0.1 * rng.normal(size=(T, *v.shape)))
        for v in network.trainable_variables
    ]


OBJECTIVES = {
    "ratio": (promp.likelihood_ratio, promp_in_numpy.ratio),
    "adaptation": (promp.adaptation_loss, promp_in_numpy.adaptation_loss),
    "clipped": (
        lambda policy, given: promp.clipped_loss(policy, given, 0.1),
        lambda policy, steps: promp_in_numpy.clipped_loss(policy, steps, 0.1),
    ),
    "divergence": (promp.divergence, promp_in_numpy.divergence),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives(network, objective):
    of_tensors, of_arrays = OBJECTIVES[objective]
    steps = [random_steps(network, t, 0) for t in range(T)]
    given, weights = experience(steps), tasks_weights(network)
    found = of_tensors(network.distribution(weights, given.observations), given)
    expected = [
        of_arrays(promp_in_numpy.Policy.of(network, weights, t), steps[t]) for t in range(T)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("objective", ["adaptation", "clipped", "divergence"])
def test_gradients_equal_finite_differences(network, objective):
    of_tensors, of_arrays = OBJECTIVES[objective]
    steps = [random_steps(network, t, 0) for t in range(T)]
    given = experience(steps)
    weights = [v.value for v in network.trainable_variables]
    with tf.GradientTape() as tape:
        policy = network.distribution(weights, given.observations)
        loss = tf.reduce_sum(of_tensors(policy, given))
    gradients = tape.gradient(loss, weights)

    def difference():
        return sum(of_arrays(promp_in_numpy.Policy.of(network), s) for s in steps)

    factory.assert_gradients(network.trainable_variables, gradients, difference)
    assert all(np.any(g != 0) for g in gradients)


def test_the_ratio_is_clipped_for_some_steps_only(network):
    """What the tests here compare is none of the two extremes."""
    steps = random_steps(network, 0, 0)
    ratios = promp_in_numpy.ratio(promp_in_numpy.Policy.of(network), steps)
    beyond = np.where(steps.advantages > 0, ratios > 1.1, ratios < 0.9)
    assert 0 < beyond.sum() < N


def acting(network, steps):
    """The same steps, taken by the network's own policy."""
    own = promp_in_numpy.Policy.of(network)
    return steps._replace(means=own.means(steps.observations), stds=np.exp(own.log_std))


def test_at_the_policy_that_acted_the_gradient_is_the_policy_gradient(network):
    """REINFORCE: minus the mean of the gradient of log π times the advantage (Williams 1992)."""
    own = promp_in_numpy.Policy.of(network)
    steps = [acting(network, random_steps(network, t, 0)) for t in range(T)]
    given, weights = experience(steps), [v.value for v in network.trainable_variables]
    with tf.GradientTape() as tape:
        policy = network.distribution(weights, given.observations)
        losses = promp.adaptation_loss(policy, given)
    gradients = promp_in_numpy.Policy.of(network, tape.gradient(losses, weights))
    np.testing.assert_allclose(promp.likelihood_ratio(policy, given), 1.0, rtol=1e-12)
    np.testing.assert_allclose(promp.divergence(policy, given), 0.0, atol=1e-12)
    # The output layer and the deviations are linear enough to write the score out.
    kernel, bias, log_std = 0.0, 0.0, 0.0
    for s in steps:
        for x, a, advantage, counts in zip(
            s.observations, s.actions, s.advantages, s.mask, strict=True
        ):
            weight = -advantage * counts / s.mask.sum()
            z = (a - own.means(x)) / s.stds
            kernel += weight * np.outer(own.hidden(x)[-1], z / s.stds)
            bias += weight * z / s.stds
            log_std += weight * (z**2 - 1)
    for found, expected in zip(
        (*gradients.layers[-1], gradients.log_std), (kernel, bias, log_std), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_where_the_policy_acted_the_losses_agree_and_their_gradients_do(network):
    given = experience([acting(network, random_steps(network, t, 0)) for t in range(T)])
    weights = [v.value for v in network.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        policy = network.distribution(weights, given.observations)
        losses = promp.adaptation_loss(policy, given), promp.clipped_loss(policy, given, 0.1)
    np.testing.assert_allclose(*losses, rtol=1e-9)
    for a, b in zip(*(tape.gradient(loss, weights) for loss in losses), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_steps_that_do_not_count_change_nothing(network):
    steps = [random_steps(network, t, 0) for t in range(T)]
    noise = np.random.default_rng(9).normal(size=N)
    changed = [
        s._replace(
            advantages=s.advantages + noise * (1 - s.mask),
            actions=s.actions + (noise * (1 - s.mask))[:, None],
            means=s.means - (noise * (1 - s.mask))[:, None],
        )
        for s in steps
    ]
    weights = tasks_weights(network)
    for objective in ("adaptation", "clipped", "divergence"):
        a, b = (
            OBJECTIVES[objective][0](network.distribution(weights, e.observations), e)
            for e in (experience(steps), experience(changed))
        )
        np.testing.assert_allclose(a, b, rtol=1e-9)


# -- the outer gradient -----------------------------------------------------------------------

RATE, CLIP, PENALTY = 0.3, 0.1, 0.7


def meta_learner(recipe, steps, **kwargs):
    """A learner whose second-order terms and divergences are large enough to show."""
    made = policies.built(recipe, steps, RATE, clip=CLIP, kl_penalty=PENALTY, **kwargs)
    if made.modulation is not None:
        # Away from a modulation that changes nothing.
        for variable in made.modulation.trainable_variables:
            rng = np.random.default_rng(len(variable.shape))
            variable.assign_add(rng.normal(scale=0.5, size=variable.shape))
    return made


def read_by_the_encoder():
    """Rollouts, which here need not be those that the inner steps are taken on."""
    return policies.trajectories(tasks=T, rollouts=2, steps=3, dtype=np.float64)


def outer_step(made, stages):
    """Takes an outer step of plain gradient descent; returns the gradient, and the metrics."""
    read = read_by_the_encoder() if made.encoder is not None else [None] * 4
    experiences = [
        experience([of_task[number] for of_task in stages]) for number in range(len(stages[0]))
    ]
    batch = [*read, *(part for e in experiences for part in e), None]
    before = [v.numpy() for v in made.trainable_variables]
    metrics = made.outer_step(batch, origin=tf.constant([0, 0]))
    after = [v.numpy() for v in made.trainable_variables]
    for variable, value in zip(made.trainable_variables, before, strict=True):
        variable.assign(value)
    return [b - a for a, b in zip(after, before, strict=True)], metrics


def loss_in_numpy(made, stages):
    """The mean over tasks of the objective, with the encoder and modulation in NumPy."""
    read, losses = [part.numpy() for part in read_by_the_encoder()], []
    for task in range(T):
        scales = None
        if made.encoder is not None:
            counts = read[3][task]
            parts = (
                read[0][task] * counts[..., None],
                read[1][task] * counts[..., None],
                read[2][task] * counts,
            )
            embedding = promp_in_numpy.embedding(made.encoder, *parts)
            scales = promp_in_numpy.film_scales(made.modulation, embedding)
        own = promp_in_numpy.Policy.of(made.network)
        losses.append(promp_in_numpy.objective(own, stages[task], RATE, CLIP, PENALTY, scales))
    return np.mean(losses)


@pytest.mark.parametrize("recipe", ["ProMP", "MultimodalProMP"])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_meta_gradient_equals_finite_differences_of_numpy(float64, recipe, steps):
    made = meta_learner(recipe, steps)
    stages = stages_of(made.network, steps)
    gradient, metrics = outer_step(made, stages)
    np.testing.assert_allclose(metrics["loss"], loss_in_numpy(made, stages), rtol=1e-5)
    factory.assert_gradients(
        made.trainable_variables, gradient, lambda: loss_in_numpy(made, stages), rtol=1e-4
    )
    assert all(np.any(g != 0) for g in gradient), "every weight takes part"


@pytest.mark.parametrize("recipe", ["ProMP", "MultimodalProMP"])
def test_eager_graph_and_xla_agree(float64, recipe):
    made = meta_learner(recipe, 1)
    stages = stages_of(made.network, 1)
    (expected, metrics), *others = [
        _compiled(made, stages, options)
        for options in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True})
    ]
    for gradient, found in others:
        assert metrics["loss"] == pytest.approx(float(found["loss"]), rel=1e-6)
        assert metrics["kl"] == pytest.approx(float(found["kl"]), rel=1e-6)
        for a, b in zip(gradient, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


def _compiled(made, stages, options):
    made.compile(keras.optimizers.SGD(1.0), **{"jit_compile": False} | options)
    gradient, metrics = outer_step(made, stages)
    return gradient, {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(("tasks_at_once", "shards"), [(1, 1), (2, 2)])
def test_dividing_a_batch_does_not_change_the_gradient(float64, tasks_at_once, shards):
    made = meta_learner("MultimodalProMP", 1)
    stages = stages_of(made.network, 1)
    expected, _ = outer_step(made, stages)
    made.compile(
        keras.optimizers.SGD(1.0), jit_compile=False, tasks_at_once=tasks_at_once, shards=shards
    )
    found, _ = outer_step(made, stages)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


def test_the_first_inner_step_sees_no_modulation(float64):
    """With one step the modulation enters where the adapted policy acts, and nowhere else."""
    made = meta_learner("MultimodalProMP", 1, modulation=mm.modulation.FiLM(shift=False))
    given = policies.trajectories(tasks=T, dtype=np.float64)
    unmodulated = policies.built("ProMP", 1, RATE, network=made.network)
    first, expected = made.adapt(given), unmodulated.adapt(given)
    for a, b in zip(first.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert expected.modulation is None
    second, plain = made.adapt(given, first), unmodulated.adapt(given, expected)
    assert any(
        not np.allclose(a, b, rtol=1e-3) for a, b in zip(second.weights, plain.weights, strict=True)
    )
    assert (first.steps, second.steps) == (1, 2)
    assert second.modulation is first.modulation
