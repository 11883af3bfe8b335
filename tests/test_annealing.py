"""What of the outer gradient changes in the course of training."""

import itertools
import shutil

import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.annealing import Phase
from mmaml_tf.checkpoint import Checkpoints
from mmaml_tf.training import train

BATCH = factory.episodes()


def learner(jit=False, recipe="MAML", steps=3, optimizer=None, **kwargs):
    """A learner whose outer step is plain gradient descent, unclipped."""
    loop = factory.inner_loop(steps, **kwargs)
    made = factory.learner(recipe, loop=loop, outer_clip=None)
    made.compile(optimizer or keras.optimizers.SGD(1.0), "mse", jit_compile=jit)
    return made


def at(made, outer_step):
    made.optimizer.build(made.trainable_variables)
    made.optimizer.iterations.assign(outer_step)
    return made


def moved(made):
    """The gradient by which one outer step moves the weights, and the loss that is reported."""
    before = [v.numpy() for v in made.trainable_variables]
    loss = made.train_on_batch(BATCH, return_dict=True)["loss"]
    after = made.trainable_variables
    return [a - b.numpy() for a, b in zip(before, after, strict=True)], loss


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6)


def test_phases_begin_where_the_settings_say():
    def phases(**kwargs):
        return mm.InnerLoop(3, **kwargs).phases()

    assert phases() == [(0, Phase())]
    assert phases(first_order=True) == [(0, Phase(first_order=True))]
    assert phases(multi_step_until=9) == [(0, Phase(multi_step=True)), (9, Phase())]
    found = phases(multi_step_until=9, first_order_until=4)
    assert found == [(0, Phase(True, True)), (4, Phase(False, True)), (9, Phase())]
    found = phases(multi_step_until=4, first_order=True)
    assert found == [(0, Phase(True, True)), (4, Phase(True, False))]


@pytest.mark.parametrize(
    ("outer_step", "expected"),
    [(0, [1 / 3] * 3), (5, [1 / 6, 1 / 6, 2 / 3]), (10, [0, 0, 1]), (99, [0, 0, 1])],
)
def test_the_weights_of_steps_go_from_equal_ones_to_the_last(outer_step, expected):
    loop = mm.InnerLoop(3, multi_step_until=10)
    np.testing.assert_allclose(loop.step_weights(outer_step, "float64"), expected, atol=1e-12)


@pytest.mark.parametrize("outer_step", [0, 6])
def test_the_multi_step_loss_is_the_weighted_sum(outer_step):
    made = at(learner(multi_step_until=10), outer_step)
    share = (1 - outer_step / 10) / 3
    with tf.GradientTape() as tape:
        path, _ = made.adaptation_path(*BATCH[:2])
        losses = [
            tf.reduce_mean((made.network.functional_call(w, BATCH.query_x) - BATCH.query_y) ** 2)
            for w in path[1:]
        ]
        expected = share * (losses[0] + losses[1]) + (1 - 2 * share) * losses[2]
    gradients = tape.gradient(expected, [v.value for v in made.trainable_variables])
    found, loss = moved(made)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert_close(found, gradients)


def test_each_phase_is_the_learner_that_it_names():
    """Under XLA, and with the bits of that learner where only one loss counts."""
    settings = {"first_order_until": 2, "multi_step_until": 4}
    annealed = learner(jit=True, **settings)
    first = learner(jit=True, first_order=True, multi_step_until=4)
    second = learner(jit=True, multi_step_until=4)
    plain = learner(jit=True)
    start = annealed.get_weights()
    seen = []
    for outer_step, other in ((0, first), (1, first), (2, second), (3, second), (4, plain)):
        for made in (annealed, other):
            made.set_weights(start)
            at(made, outer_step)
        found, expected = moved(annealed), moved(other)
        np.testing.assert_array_equal(found[1], expected[1])
        for a, b in zip(found[0], expected[0], strict=True):
            np.testing.assert_array_equal(a, b)
        seen.append(found[0][0])
    assert all(not np.allclose(a, b) for a, b in itertools.pairwise(seen))
    assert int(annealed.optimizer.iterations) == 5


@pytest.mark.parametrize("settings", [{"shards": 2}, {"tasks_at_once": 1}])
def test_annealing_does_not_depend_on_the_division(settings):
    whole = learner(multi_step_until=8, update="layer_step_rates")
    divided = learner(multi_step_until=8, update="layer_step_rates")
    divided.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False, **settings)
    (a, loss_a), (b, loss_b) = (moved(at(made, 3)) for made in (whole, divided))
    np.testing.assert_allclose(loss_a, loss_b, rtol=1e-6)
    assert_close(a, b)


def test_several_steps_a_call_are_annealed_one_by_one():
    made, other = learner(multi_step_until=3), learner(multi_step_until=3)
    made.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, steps_per_execution=4)
    other.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    for each in (made, other):
        each.fit(factory.dataset(BATCH, 4), verbose=0)
    for a, b in zip(made.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def annealed(recipe):
    made = learner(
        recipe=recipe,
        steps=2,
        optimizer=keras.optimizers.Adam(1e-2),
        update="layer_step_rates",
        first_order_until=3,
        multi_step_until=5,
    )
    return made


@pytest.mark.parametrize("recipe", ["MMAML", "MultiMAML"])
def test_training_resumes_in_the_middle_of_annealing(recipe, tmp_path):
    tasks = mm.tasks.FunctionTasks(factory.MODES, support=3, queries=2)
    settings = {"batch_size": 4, "seed": 0, "log_every": 2, "checkpoint_every": 2}

    def run(made, directory):
        return train(
            made, tasks, iterations=6, checkpoints=Checkpoints(directory, {}, keep=9), **settings
        )

    whole = annealed(recipe)
    history = run(whole, tmp_path / "whole")
    for step in (4,):
        directory = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "whole", directory)
        for later in range(step + 2, 7, 2):
            shutil.rmtree(directory / f"step-{later:09d}")
        resumed = annealed(recipe)
        assert run(resumed, directory) == history
        states.assert_same(whole, resumed)


def test_a_keras_file_goes_on_with_the_annealing(tmp_path):
    made = annealed("MMAML")
    made.fit(factory.dataset(BATCH, 2), verbose=0)
    made.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.inner_loop.phases() == made.inner_loop.phases()
    for each in (made, loaded):
        each.fit(factory.dataset(BATCH, 4), verbose=0)
    states.assert_same(made, loaded)


def test_a_step_that_is_left_out_is_not_counted():
    made = learner(multi_step_until=8)
    made.on_nonfinite = "skip"
    bad = BATCH._replace(query_y=BATCH.query_y + 1e30)
    made.fit(factory.dataset(BATCH).concatenate(factory.dataset(bad, 2)), verbose=0)
    assert int(made.optimizer.iterations) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multi_step_until": 0}, "multi_step_until=0: expected a whole number of at least 1"),
        ({"first_order_until": 1.5}, "first_order_until=1.5: expected a whole number"),
        ({"steps": 1, "multi_step_until": 5}, "no effect with steps=1"),
        ({"steps": 0, "first_order_until": 5}, "no effect with steps=0"),
        ({"first_order": True, "first_order_until": 5}, "no effect with first_order=True"),
    ],
)
def test_annealing_without_effect_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mm.InnerLoop(**settings)
