"""Update rules: values derived by hand, finite differences, eager = graph = XLA."""

import doctest
import io

import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import update_rules
from mmaml_tf.update_rules import update_rule

RULES = {
    "gradient_descent": lambda: update_rules.GradientDescent(0.2),
    "meta_sgd": lambda: update_rules.MetaSGD(0.2),
    "layer_step_rates": lambda: update_rules.LayerStepRates(0.2),
    "momentum": lambda: update_rules.Momentum(0.2, 0.7),
    # Its update follows the gradient's size, and not its sign alone.
    "adam": lambda: update_rules.Adam(0.2, 0.8, 0.9, epsilon=0.1),
    "inertia": lambda: Inertia(0.2),
}
LEARNED = ("meta_sgd", "layer_step_rates", "inertia")


@keras.saving.register_keras_serializable("tests")
class Inertia(update_rules.UpdateRule):
    """What a user writes: a rule that learns how much of the step before it goes on."""

    def build_for(self, variables, steps):
        self.share = self.add_weight(shape=(), initializer="zeros", name="share")

    def initial_state(self, weights):
        return [tf.zeros_like(w) for w in weights]

    def update(self, step, weights, gradients, state):
        pairs = zip(gradients, state, strict=True)
        steps = [tf.convert_to_tensor(self.share) * s - self.learning_rate * g for g, s in pairs]
        return [w + s for w, s in zip(weights, steps, strict=True)], steps


def built(name, shapes=((3,),), steps=3, **kwargs):
    """An inner loop with a rule for weights of some shapes, whose learned rates all differ."""
    loop = mm.InnerLoop(steps, update=RULES[name](), **kwargs)
    loop.build_for([keras.Variable(np.zeros(shape), name="w") for shape in shapes])
    rng = np.random.default_rng(0)
    for v in loop.variables:
        v.assign(rng.uniform(0.05, 0.3, v.shape))
    return loop


def test_every_supplied_rule_is_tested():
    assert set(update_rules.UPDATE_RULES) <= set(RULES)
    for name, kind in update_rules.UPDATE_RULES.items():
        assert type(RULES[name]()) is kind
        assert type(mm.InnerLoop(update=name).update) is kind


# -- by hand -----------------------------------------------------------------------------------

# Two tasks of three weights, each with the loss ½(w·x − y)², whose gradient is x(w·x − y).
X = np.array([[1.0, 2.0, -1.5], [0.5, -1.0, 2.5]])
Y = np.array([[3.0, -1.0, 0.5], [1.0, 2.0, -2.0]])
W = np.array([[2.0, 3.0, 5.0], [-1.0, 0.5, 1.0]])


def squared(weights, step):
    del step
    return tf.reduce_sum(0.5 * tf.square(weights[0] * X - Y), axis=1)


def rates_by_hand(loop, name, steps):
    """The rates of each step, `[steps, 3]`; the last ones go on."""
    if name == "layer_step_rates":
        own = loop.update.rates.numpy()[0]
        return [np.full(3, own[min(step, len(own) - 1)]) for step in range(steps)]
    own = loop.update.rates[0].numpy() if name == "meta_sgd" else np.full(3, 0.2)
    return [own] * steps


@pytest.mark.parametrize("name", ["gradient_descent", "meta_sgd", "layer_step_rates"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rates_act_as_derived_by_hand(float64, name, steps):
    # w' = w − αx(w·x − y) shrinks w − y/x by 1 − αx².
    loop = built(name)
    weight = tf.constant(W)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([weight, [v.value for v in loop.variables]])
        adapted = loop(squared, [weight], steps)[-1][0]
        total = tf.reduce_sum(adapted)
    rates = rates_by_hand(loop, name, steps)
    shrinks = [1 - rate * X**2 for rate in rates]
    shrink = np.prod(shrinks, axis=0)
    np.testing.assert_allclose(adapted, Y / X + shrink * (W - Y / X), rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(total, weight), shrink, rtol=1e-12)
    # By the rate of one step, the shrinking of that step changes by −x².
    of_step = [-(X**2) * shrink / own * (W - Y / X) for own in shrinks]
    found = [tf.convert_to_tensor(tape.gradient(total, v.value)) for v in loop.variables]
    if name == "meta_sgd":
        np.testing.assert_allclose(found[0], np.sum(of_step, axis=(0, 1)), rtol=1e-10)
    if name == "layer_step_rates":
        expected = np.zeros(3)
        for step, part in enumerate(of_step):
            expected[min(step, 2)] += part.sum()
        np.testing.assert_allclose(found[0][0], expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["momentum", "adam", "inertia"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rules_with_a_memory_act_as_derived_by_hand(float64, name, steps):
    loop = built(name)
    adapted = loop(squared, [tf.constant(W)], steps)[-1][0]
    w, first, second = W, 0.0, 0.0
    for step in range(1, steps + 1):
        gradient = X * (w * X - Y)
        if name == "momentum":
            first = 0.7 * first + gradient
            w = w - 0.2 * first
        elif name == "inertia":
            first = loop.update.share.numpy() * first - 0.2 * gradient
            w = w + first
        else:
            first = 0.8 * first + 0.2 * gradient
            second = 0.9 * second + 0.1 * gradient**2
            mean, square = first / (1 - 0.8**step), second / (1 - 0.9**step)
            w = w - 0.2 * mean / np.sqrt(square + 0.1**2)
    np.testing.assert_allclose(adapted, w, rtol=1e-12)


def test_adam_is_differentiable_twice_at_a_gradient_of_zero(float64):
    epsilon, rate = 1e-3, 0.2
    loop = mm.InnerLoop(1, update=update_rules.Adam(rate, epsilon=epsilon))
    weight = tf.constant(Y / X)
    with tf.GradientTape() as second:
        second.watch(weight)
        with tf.GradientTape() as first:
            first.watch(weight)
            adapted = loop(squared, [weight])[-1][0]
        slope = first.gradient(adapted, weight)
    np.testing.assert_allclose(adapted, weight)
    # The step is α·g/√(g² + ε²), and the gradient g changes by x² with the weight.
    np.testing.assert_allclose(slope, 1 - rate * X**2 / epsilon, rtol=1e-9)
    np.testing.assert_allclose(second.gradient(slope, weight), 0 * X, atol=1e-6)
    for steps in (2, 5):
        loop.steps = steps
        with tf.GradientTape() as tape:
            tape.watch(weight)
            adapted = loop(squared, [weight])[-1][0]
        assert np.isfinite(tape.gradient(adapted, weight)).all()


# -- gradients ---------------------------------------------------------------------------------

SHAPES = (2, 3), (3,)


def tasks():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 5, 3))
    return tf.constant(x), tf.constant(y), [rng.normal(size=(2, *shape)) for shape in SHAPES]


def meta_loss(loop, weights, steps, mode=None):
    """The losses of adapted weights on points of their own, whose second order is not zero."""
    x, y, _ = tasks()

    def loss(weights, points):
        kernel, bias = weights
        outputs = tf.tanh(tf.matmul(points, kernel) + bias[:, None])
        return tf.reduce_mean((outputs - y) ** 2, axis=[1, 2])

    path = loop(lambda w, step: loss(w, x), weights, steps, mode=mode)
    return tf.reduce_sum(loss(path[-1], 1 - x))


def gradients_of(loop, weights, steps):
    variables = [*weights, *(v.value for v in loop.variables)]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        loss = meta_loss(loop, [tf.convert_to_tensor(w) for w in weights], steps)
    return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradients_equal_finite_differences(float64, name, steps):
    loop = built(name, SHAPES)
    weights = [tf.Variable(w, name=f"weight_{i}") for i, w in enumerate(tasks()[2])]
    graph = tf.function(lambda: gradients_of(loop, weights, steps), autograph=False)
    _, gradients = graph()
    variables = [*weights, *loop.variables]
    factory.assert_gradients(variables, gradients, lambda: graph()[0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_eager_graph_and_xla_agree(float64, name):
    loop = built(name, SHAPES)
    weights = [tf.Variable(w) for w in tasks()[2]]

    def compute():
        return gradients_of(loop, weights, 3)

    eager = compute()
    for jit in (False, True):
        found = tf.function(compute, jit_compile=jit, autograph=False)()
        for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(eager), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["meta_sgd", "layer_step_rates"])
def test_first_order_still_trains_the_rates(float64, name):
    """The gradients are constants, and the rates before them are not."""
    loop = built(name, first_order=True)
    weight = tf.constant(W)
    with tf.GradientTape() as tape:
        tape.watch([weight, [v.value for v in loop.variables]])
        total = tf.reduce_sum(loop(squared, [weight], 1)[-1][0])
    by_weight, by_rate = tape.gradient(total, [weight, loop.variables[0].value])
    np.testing.assert_allclose(by_weight, np.ones_like(W))
    np.testing.assert_allclose(np.sum(by_rate), -np.sum(X * (W * X - Y)), rtol=1e-10)


def test_steps_may_be_tensors(float64):
    """Policies are adapted by one graph for all steps."""
    for name in RULES:
        loop, weights = built(name), [tf.constant(W)]
        state = loop.initial_state(weights)
        take = tf.function(lambda w, n, s, loop=loop: loop.take_step(squared, w, n, s))
        for step in range(5):
            weights, state = take(weights, tf.constant(step), state)
        expected = loop(squared, [tf.constant(W)], 5)[-1]
        np.testing.assert_allclose(weights[0], expected[0], rtol=1e-12)


# -- in learners -------------------------------------------------------------------------------


def learner(name, recipe="MAML", steps=2, rates=None, **kwargs):
    """A learner whose rates start as given, or from 0.1."""
    rule = RULES[name]()
    rule.learning_rate = 0.1
    made = factory.learner(recipe, loop=mm.InnerLoop(steps, update=rule), **kwargs)
    for v in made.inner_loop.variables if rates is not None else ():
        v.assign(np.random.default_rng(rates).uniform(0.05, 0.2, v.shape))
    return made


@pytest.mark.parametrize(
    ("name", "recipe", "network"),
    [
        ("meta_sgd", "MultiMAML", None),
        ("layer_step_rates", "MMAML", None),
        ("momentum", "MAML", factory.keras_mlp),
        ("adam", "MMAML", None),
        ("inertia", "MultiMAML", None),
    ],
)
def test_the_meta_gradient_of_learners_equals_finite_differences(float64, name, recipe, network):
    made = learner(name, recipe, rates=0, network=network and network())
    batch = factory.episodes(dtype=np.float64)
    _, gradients = factory.outer_gradient(made, batch)
    assert all(np.any(g != 0) for g in gradients)
    # Two weights of the network, and what the rule learns.
    own = set(map(id, made.inner_loop.trainable_variables))
    checked = [*range(2), *(i for i, v in enumerate(made.trainable_variables) if id(v) in own)]
    factory.assert_gradients(
        [made.trainable_variables[i] for i in checked],
        [gradients[i] for i in checked],
        factory.outer_loss(made, batch),
    )


def test_equal_rates_are_gradient_descent():
    batch = factory.episodes()
    expected = learner("gradient_descent").adapt(*batch[:2])(batch.query_x)
    for name in LEARNED:
        found = learner(name).adapt(*batch[:2])(batch.query_x)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["meta_sgd", "layer_step_rates"])
def test_learned_rates_are_clipped_as_a_group_of_their_own(name):
    made = learner(name, outer_clip=0.01)
    made.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    batch = factory.episodes()
    _, gradients = factory.outer_gradient(made, batch)
    before = [v.numpy() for v in made.trainable_variables]
    made.fit(batch, verbose=0)
    assert [len(group) for group in made.gradient_groups()] == [6, len(gradients) - 6]
    for group in (slice(0, 6), slice(6, None)):
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients[group]))
        assert norm > 0.01
        after = made.trainable_variables[group]
        for g, old, new in zip(gradients[group], before[group], after, strict=True):
            np.testing.assert_allclose(old - new.numpy(), g * 0.01 / norm, rtol=1e-3, atol=1e-7)


def test_learned_rates_are_watched_and_shown():
    made = learner("layer_step_rates")
    rates = made.inner_loop.update.rates
    assert rates.path in made.guard.tensors
    rates.assign(np.full(rates.shape, 1e30))
    with pytest.raises(mm.NonFiniteError):
        made.fit(factory.episodes(), verbose=0)
    np.testing.assert_array_equal(rates, np.full(rates.shape, 1e30, "f"))
    shown = io.StringIO()
    made.summary(print_fn=lambda text: shown.write(text))
    assert "InnerLoop" in shown.getvalue()
    assert made.count_params() == 5 + 5 + 20 + 4 + 4 + 1 + 6 * 2 + int(
        sum(np.prod(v.shape) for v in made.guard.weights)
    )


def test_frozen_rates_stay_fixed_and_are_frozen_after_loading(tmp_path):
    made = learner("meta_sgd", rates=1)
    made.inner_loop.update.trainable = False
    made.compile("sgd", "mse", jit_compile=False)
    before = made.inner_loop.update.get_weights()
    first = made.network.get_weights()
    made.fit(factory.episodes(), verbose=0)
    for a, b in zip(before, made.inner_loop.update.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], made.network.get_weights()[0])
    made.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert not loaded.inner_loop.trainable_variables
    states.assert_same(made, loaded)


def test_rates_are_of_the_weights_that_are_adapted(tmp_path):
    network = factory.mlp()
    network.build((None, None, 1))
    network.dense[0].trainable = False
    made = factory.learner("MAML", network, loop=factory.inner_loop(update="layer_step_rates"))
    assert made.inner_loop.update.rates.shape == (4, 2)
    made.fit(factory.episodes(), verbose=0)
    made.save(tmp_path / "learner.keras")
    states.assert_same(made, keras.models.load_model(tmp_path / "learner.keras"))
    network.dense[0].trainable = True
    made.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match=r"built for 4 weights, .* adapts 6"):
        made.fit(factory.episodes(), verbose=0)
    head = factory.inner_loop(update="meta_sgd", head_only=True)
    made = factory.learner("MAML", loop=head)
    assert [tuple(v.shape) for v in head.variables] == [(4, 1), (1,)]
    made.fit(factory.episodes(), verbose=0)


@pytest.mark.parametrize("frozen", [None, 1])
def test_what_a_bank_froze_is_frozen_after_loading(tmp_path, frozen):
    made = learner("layer_step_rates", "MultiMAML", rates=2)
    if frozen is not None:
        made.inner_loop.rules[frozen].trainable = False
    made.optimizer.build(made.trainable_variables)
    made.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    trainable = [rule.trainable for rule in loaded.inner_loop.rules]
    assert trainable == [True, frozen is None]
    states.assert_same(made, loaded)


@pytest.mark.parametrize("name", LEARNED)
def test_a_bank_trains_like_its_members_apart(name):
    """One of the rules has a memory, too."""
    bank = learner(name, "MultiMAML", outer_clip=0.05)
    batch = factory.episodes(tasks=6)
    bank.fit(factory.dataset(batch, 3), verbose=0)
    alone = []
    for mode in range(2):
        single = learner(name, network=factory.mlp(seed=mode), outer_clip=0.05)
        rows = [a[mode::2] for a in batch[:5]]
        single.fit(factory.dataset(mm.Episodes(*rows, batch.origin), 3), verbose=0)
        alone.append(single)
        found = bank.networks[mode].get_weights() + bank.inner_loop.rules[mode].get_weights()
        expected = single.network.get_weights() + single.inner_loop.get_weights()
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    if name != "inertia":
        return
    joined = mm.MultiMAML.from_learners(alone, factory.MODES)
    joined.compile(loss="mse", jit_compile=False)
    x, y, q = batch[:3]
    for single, rows in zip(alone, (slice(0, None, 2), slice(1, None, 2)), strict=True):
        expected = single.adapt(x[rows], y[rows])(q[rows])
        for made in (joined, bank):
            found = made.adapt(x, y, mode=batch.mode)(q)[rows]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert not set(map(id, joined.inner_loop.variables)) & set(map(id, alone[0].weights))


def test_a_rule_that_learns_nothing_serves_all_modes_of_a_bank():
    assert len(learner("adam", "MultiMAML").inner_loop.rules) == 1


def test_rates_are_shown_as_a_table():
    made = learner("layer_step_rates", "MultiMAML", rates=3)
    rows = update_rules.rate_table(made)
    assert len(rows) == 2 * 6 * 2
    second = made.inner_loop.rules[1].rates.numpy()
    expected = {"mode": "linear", "step": 1, "variable": made.network.dense[0].kernel.path}
    (found,) = [row for row in rows if expected.items() <= row.items()]
    np.testing.assert_allclose(found["mean"], second[0, 1])
    made = learner("meta_sgd", rates=4)
    rows = update_rules.rate_table(made)
    assert [row["step"] for row in rows] == [None] * 6
    rates = made.inner_loop.update.rates[2].numpy()
    found = [rows[2][name] for name in ("mean", "min", "max")]
    np.testing.assert_allclose(found, [rates.mean(), rates.min(), rates.max()], rtol=1e-6)
    assert update_rules.rate_table(learner("adam")) == []


def test_the_example_of_a_rule_runs():
    found = doctest.testmod(update_rule)
    assert (found.failed, found.attempted > 0) == (0, True)


# -- refusals ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Regularised(Inertia):
    def build_for(self, variables, steps):
        self.share = self.add_weight(shape=(), regularizer="l2", name="share")


def shared():
    loop = mm.InnerLoop(2, update="meta_sgd")
    return [factory.learner("MAML", loop=loop) for _ in range(2)]


def set_learned_rate():
    learner("meta_sgd").inner_loop.learning_rate = 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mm.InnerLoop(update="sgd"),
            r"unknown update rule 'sgd'; expected one of \['adam'",
        ),
        (lambda: mm.InnerLoop(update=update_rules.Adam), "unknown update rule"),
        (
            lambda: mm.InnerLoop(1, 0.1, update=update_rules.Adam(0.2)),
            "an update rule that has its own",
        ),
        (lambda: mm.InnerLoop(1, -0.1, update="adam"), "expected a finite positive"),
        (lambda: update_rules.Momentum(momentum=1.0), "momentum=1.0: expected a number between"),
        (lambda: update_rules.Adam(beta_2=True), "beta_2=True: expected a number between"),
        (lambda: update_rules.Adam(epsilon=0.0), "epsilon=0.0: expected a finite positive"),
        (lambda: mm.InnerLoop(2, update="meta_sgd")(squared, [W]), "has no variables yet"),
        (lambda: factory.learner("MAML", loop=mm.InnerLoop(0, update="meta_sgd")), "learn nothing"),
        (lambda: factory.learner("MAML", loop=mm.InnerLoop(update=Regularised())), "regularises"),
        (shared, "give each learner an InnerLoop of its own"),
        (set_learned_rate, "has learned rates by now"),
    ],
)
def test_what_has_no_effect_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
