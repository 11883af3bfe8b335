"""Learners of policies by the methods of Keras: these work, or say what to call instead."""

import copy
import pickle

import keras
import numpy as np
import pandas
import policies
import pytest
import tensorflow as tf
from policies import GOALS, TASKS, dataset

import mmaml_tf as mm

optimizers = keras.optimizers
GOAL, MODE = GOALS.goal.numpy(), GOALS.mode.numpy()


@pytest.fixture(scope="module")
def learner():
    return policies.ready("ProMP")


DATA = {
    "goals": lambda: GOALS,
    "a tuple": lambda: (GOAL, MODE),
    "goals alone": lambda: (GOAL.astype("float64"),),
    "a frame": lambda: {"goal": pandas.DataFrame(GOAL), "mode": MODE},
    "a dataset of tuples": lambda: tf.data.Dataset.from_tensors((GOAL, MODE)),
    "a dataset of dictionaries": lambda: tf.data.Dataset.from_tensors({"goal": GOAL}),
}


@pytest.mark.parametrize("name", DATA)
def test_goals_come_in_every_form(learner, name):
    history = learner.fit(DATA[name](), validation_data=DATA[name](), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(history["val_return_after_1"]).all()


def test_one_batch_is_trained_and_tested_on(learner):
    trained = learner.train_on_batch((GOAL, MODE), return_dict=True)
    tested = learner.test_on_batch(GOALS, return_dict=True)
    assert set(trained) - set(tested) == {"loss", "kl"}


def test_batches_of_an_evaluation_have_other_rollouts(learner, monkeypatch):
    seeds, collect = [], learner.rollouts.collect
    monkeypatch.setattr(
        learner.rollouts, "collect", lambda *given: seeds.append(given[-1]) or collect(*given)
    )
    both = tf.data.Dataset.from_tensors((GOAL,)).repeat(2)
    first, again = (learner.evaluate(both, verbose=0, return_dict=True) for _ in range(2))
    assert len(set(seeds[:4])) == 4
    assert seeds[:4] == seeds[4:]
    np.testing.assert_equal(first, again)


REFUSED = [
    (lambda m: m(GOALS), "a policy predicts nothing"),
    (lambda m: m.predict(GOALS, verbose=0), "a policy predicts nothing"),
    (lambda m: m.predict(), "a policy predicts nothing"),
    (lambda m: m.predict_on_batch(GOALS), "a policy predicts nothing"),
    (lambda m: m.fit(), "x is a NoneType; expected mmaml_tf Goals"),
    (lambda m: m.fit(GOALS, GOAL), "fit got y"),
    (lambda m: m.fit(GOALS, class_weight={0: 2}), "fit got class_weight"),
    (lambda m: m.fit(TASKS.dataset(2, 0)), "give steps_per_epoch"),
    (lambda m: m.evaluate(TASKS.dataset(2, 0)), "give steps"),
    (lambda m: m.fit((GOAL * np.nan,)), r"goal of task 0 is \[nan, nan\]"),
    (lambda m: m.evaluate((GOAL * np.inf,)), r"goal of task 0 is \[inf, inf\]"),
    (lambda m: m.fit((np.ones([4, 3], "f"),)), "with goals of 3 coordinates"),
    (lambda m: m.fit((GOAL, [0, 1, 2, 0])), r"mode is \[0, 1, 2, 0\]; expected indices in"),
    (lambda m: m.fit((GOAL, [0, 1])), r"mode has shape \(2,\)"),
    (lambda m: m.fit((GOAL, MODE, [0.5, 1.0])), "expected two whole numbers"),
    (lambda m: next(m.stages((GOAL, [0, 1, 0, -1]))), r"mode is \[0, 1, 0, -1\]"),
    (lambda m: next(m.stages(GOALS, rollouts="Bandit-v0")), "rollouts is a str"),
    (lambda m: mm.evaluate(m, TASKS, 1, rollouts=3), "rollouts is a int"),
    (lambda m: m.adapt(policies.trajectories()[:3]), "expected mmaml_tf.rl.Trajectories"),
    (lambda m: m.adapt(policies.trajectories(), 3), "parameters is a int"),
    (lambda m: m.initial_parameters(2.5), "tasks=2.5"),
    (lambda m: m.build([(3,), (2,)]), "has its weights already"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(learner, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(learner)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "mse"}, "compile got loss"),
        ({"metrics": ["mse"]}, "compile got metrics"),
        ({"loss_weights": [1.0]}, "compile got loss_weights"),
        ({"rollouts": "Bandit-v0"}, "rollouts is a str"),
        ({"optimizer": None}, "a learner needs one"),
    ],
)
def test_what_compile_would_ignore_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        policies.learner("ProMP").compile(**arguments)


def test_nothing_works_inside_the_scope_of_a_strategy(learner):
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        for call in (
            lambda: next(learner.stages(GOALS)),
            lambda: learner.adapt(policies.trajectories()),
            lambda: learner.rollouts.collect(learner.network, [], None, GOAL, (0,)),
            lambda: learner.export("nowhere"),
        ):
            with pytest.raises(ValueError, match=r"cannot be called inside strategy\.scope"):
                call()


@pytest.mark.parametrize("built", [False, True])
def test_copies_are_like_their_original(learner, built):
    made = learner if built else policies.learner("ProMP")
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert copied.built == built
        for a, b in zip(made.weights, copied.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    assert "ProMP" in made.to_json()
    made.summary(print_fn=lambda *_, **__: None)


OPTIMIZERS = {
    "loss_scale_factor": lambda: optimizers.SGD(0.1, loss_scale_factor=1024.0),
    "dynamic loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
    "weight decay": lambda: optimizers.SGD(0.1, weight_decay=0.5),
    "clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=1e-3),
    "accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
}


@pytest.fixture(scope="module")
def first_updates():
    """Returns a function from an optimizer to the change it makes in one outer step, flat."""
    made = policies.learner("ProMP", epochs=1)
    made.compile("sgd", policies.Rollouts("Bandit-v0", 4, max_episode_steps=2), jit_compile=False)
    made.build_for(GOALS)
    start = made.get_weights()

    def updates(optimizer):
        made.set_weights(start)
        made.compile(optimizer, made.rollouts, jit_compile=False)
        made.train_on_batch(GOALS)
        return flat(made) - before

    def flat(learner):
        return np.concatenate([np.ravel(v) for v in learner.trainable_variables])

    before = flat(made)
    return updates, before, updates(optimizers.SGD(0.1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_optimizer_is_asked_for_takes_effect(first_updates, name):
    updates, before, plain = first_updates
    found = updates(OPTIMIZERS[name]())
    expected = {
        "weight decay": plain - 0.1 * 0.5 * before,
        "clipnorm": plain * min(1, 1e-3 / (np.linalg.norm(plain) / 0.1)),
        "accumulation": np.zeros_like(plain),  # the second step updates
    }.get(name, plain)
    assert np.abs(plain).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["mixed_bfloat16", "float64"])
def test_precision_is_that_of_the_policy(kind, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(kind)
    try:
        made = policies.ready("MultimodalProMP")
        history = made.fit(GOALS, verbose=0).history
        made.export(tmp_path / "model")
    finally:
        keras.config.set_dtype_policy(before)
    stage = next(made.stages(GOALS))
    model = tf.saved_model.load(tmp_path / "model")
    adapted = model.adapt(*stage.trajectories[:3], model.initial(tf.constant(4)))
    expected = made.adapt(stage.trajectories).weights[-1]
    dtype = "float64" if kind == "float64" else "float32"
    assert stage.trajectories.rewards.dtype == expected.dtype == adapted["weight_06"].dtype == dtype
    np.testing.assert_allclose(adapted["weight_06"], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("part", ["log_std", "dense"])
def test_layers_may_be_frozen_and_released(part, tmp_path):
    made = policies.ready("ProMP")
    made.fit(GOALS, verbose=0)
    frozen = getattr(made.network, part)
    frozen, variable = (frozen[0], frozen[0].kernel) if part == "dense" else (frozen, frozen)
    frozen.trainable = False
    before = variable.numpy()
    made.compile(optimizers.SGD(0.1), made.rollouts, jit_compile=False, shards=4)
    made.fit(GOALS, verbose=0)
    np.testing.assert_array_equal(variable, before)
    stages = list(made.stages(GOALS))
    made.export(tmp_path / "model")
    model = tf.saved_model.load(tmp_path / "model")
    parameters = model.adapt(*stages[0].trajectories[:3], model.initial(tf.constant(4)))
    x, noise = (np.random.default_rng(0).normal(size=(4, 5, n)).astype("f") for n in (3, 2))
    acting = made.network.distribution(stages[1].parameters.weights, x)
    expected = acting.mean() + acting.stddev() * noise
    np.testing.assert_allclose(model.act(x, noise, parameters)["action"], expected, rtol=1e-5)
    frozen.trainable = True
    with pytest.raises(ValueError, match="call compile again"):
        made.fit(GOALS, verbose=0)
    made.compile(optimizers.SGD(0.1), made.rollouts, jit_compile=False)
    made.fit(GOALS, verbose=0)
    assert not np.array_equal(variable, before)


def test_settings_may_be_set_anew():
    made = policies.ready("ProMP", epochs=1)
    stage = next(made.stages(GOALS))
    found = made.experience(stage.trajectories, stage.parameters).advantages
    made.discount = 0.0
    changed = made.experience(stage.trajectories, stage.parameters).advantages
    assert not np.allclose(found, changed)
    made.inner_loop.steps = 2
    with pytest.raises(ValueError, match="takes 2 steps, and the learner reports returns after 1"):
        made.fit(GOALS, verbose=0)


def test_goals_of_one_s_own_get_other_rollouts_with_every_optimizer(monkeypatch):
    made = policies.ready("ProMP", epochs=1)
    made.compile(
        optimizers.SGD(0.1, gradient_accumulation_steps=4), made.rollouts, jit_compile=False
    )
    seeds, collect = [], made.rollouts.collect
    monkeypatch.setattr(
        made.rollouts, "collect", lambda *given: seeds.append(given[-1][:2]) or collect(*given)
    )
    made.fit(dataset(2, origin=None), verbose=0)
    made.compile("sgd", made.rollouts, jit_compile=False)
    made.fit(dataset(origin=None), verbose=0)
    assert seeds[::2] == [(0, 0), (0, 1), (0, 2)]
