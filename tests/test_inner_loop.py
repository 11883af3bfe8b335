import doctest

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm


def squared(x, y):
    """Per-task loss ½(w·x − y)², one scalar weight a task."""
    return lambda weights, step: 0.5 * (weights[0] * x - y) ** 2


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("jit", [False, True])
def test_second_order_gradient_equals_the_hand_derived_one(steps, jit):
    # w_s = w − a·x(w·x − y) gives w_n = y/x + (1 − a·x²)^n (w − y/x), hence dw_n/dw = (1 − a·x²)^n.
    x, y, w, a = np.array([1.0, 2.0, -1.5]), np.array([3.0, -1.0, 0.5]), np.array([2.0, 3, 5]), 0.1
    weight = tf.constant(w)
    loop = mm.InnerLoop(steps, a)

    @tf.function(jit_compile=jit)
    def meta_gradient():
        with tf.GradientTape() as tape:
            tape.watch(weight)
            adapted = loop(squared(tf.constant(x), tf.constant(y)), [weight])[-1][0]
            loss = tf.reduce_sum(adapted**2)
        return adapted, tape.gradient(loss, weight)

    adapted, gradient = meta_gradient()
    shrink = (1 - a * x**2) ** steps
    expected = y / x + shrink * (w - y / x)
    np.testing.assert_allclose(adapted, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, 2 * expected * shrink, rtol=1e-12)


def test_first_order_treats_the_inner_gradient_as_a_constant():
    x, y, weight = tf.constant([2.0]), tf.constant([1.0]), tf.constant([3.0])
    loop = mm.InnerLoop(3, 0.1, first_order=True)
    with tf.GradientTape() as tape:
        tape.watch(weight)
        adapted = loop(squared(x, y), [weight])[-1][0]
    np.testing.assert_allclose(tape.gradient(adapted, weight), [1.0])
    np.testing.assert_allclose(adapted, mm.InnerLoop(3, 0.1)(squared(x, y), [weight])[-1][0])


def test_clip_is_element_wise_and_stops_the_second_order_term_where_it_acts():
    x, y, weight = tf.constant([1.0, 10.0]), tf.constant([0.0, 0.0]), tf.constant([0.5, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(weight)
        adapted = mm.InnerLoop(1, 0.1, clip=2.0)(squared(x, y), [weight])[-1][0]
    # Task 0: gradient 0.5, below the bound. Task 1: gradient 100, held at 2.
    np.testing.assert_allclose(adapted, [0.45, 0.8], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(adapted, weight), [0.9, 1.0], rtol=1e-6)


def test_path_holds_the_weights_before_and_after_each_step():
    weight = tf.constant([1.0])
    path = mm.InnerLoop(3, 0.5)(squared(tf.constant([1.0]), tf.constant([0.0])), [weight])
    np.testing.assert_allclose([w[0][0] for w in path], [1.0, 0.5, 0.25, 0.125])
    assert len(mm.InnerLoop(3, 0.5)(squared(1.0, 0.0), [weight], steps=0)) == 1


def test_the_loss_is_told_the_step():
    seen = []

    def loss(weights, step):
        seen.append(step)
        return weights[0] * float(step)

    path = mm.InnerLoop(3, 1.0)(loss, [tf.constant([0.0])])
    assert seen == [0, 1, 2]
    np.testing.assert_allclose(path[-1][0], [-3.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps=-1: expected a whole number"),
        ({"steps": 1.5}, "whole number"),
        ({"learning_rate": 0.0}, "learning_rate=.* expected a finite positive"),
        ({"learning_rate": -1.0}, "learning_rate=.* expected a finite positive"),
        ({"clip": 0.0}, "clip=0.0: expected a finite positive"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mm.InnerLoop(**arguments)


def test_a_hook_sees_every_step():
    seen = []
    loop = mm.InnerLoop(3, 0.5, clip=0.8, on_step=lambda *step: seen.append(step))
    path = loop(squared(tf.constant([1.0]), tf.constant([0.0])), [tf.constant([1.0])])
    for number, (step, weights, gradients, losses) in enumerate(seen):
        assert step == number
        before, after = (path[number + i][0].numpy() for i in (0, 1))
        np.testing.assert_array_equal(weights[0], before)
        np.testing.assert_allclose(after, before - 0.5 * gradients[0])
        np.testing.assert_allclose(losses, 0.5 * before**2)
    assert len(seen) == 3
    assert seen[0][2][0] == 0.8  # clipped, as the rule gets it


@keras.saving.register_keras_serializable("tests")
def noted(step, weights, gradients, losses):
    NOTES.append((step, len(weights)))


NOTES = []


def test_a_hook_is_part_of_a_learner(tmp_path):
    made = factory.learner("MAML", loop=factory.inner_loop(2, on_step=noted))
    made.adapt(*factory.episodes()[:2])
    assert (1, 6) in NOTES
    made.save(tmp_path / "learner.keras")
    assert keras.models.load_model(tmp_path / "learner.keras").inner_loop.on_step is noted
    count = len(NOTES)
    made.inner_loop.on_step = None
    made.adapt(*factory.episodes()[:2])
    assert len(NOTES) == count


def test_an_inner_loop_is_made_from_its_configuration():
    loop = mm.InnerLoop(
        4, update=mm.update_rules.Momentum(0.3, 0.5), clip=2.0, head_only=True,
        multi_step_until=7, first_order_until=3, on_step=noted, name="mine",
    )  # fmt: skip
    copy = mm.InnerLoop.from_config(loop.get_config())
    assert copy.get_config() == loop.get_config()
    assert (copy.update.momentum, copy.learning_rate, copy.name) == (0.5, 0.3, "mine")
    assert mm.InnerLoop().learning_rate == 1e-3


def test_the_examples_run():
    found = doctest.testmod(mm.inner_loop)
    assert (found.failed, found.attempted > 0) == (0, True)
